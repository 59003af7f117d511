#include "parallel/collectives.h"

#include <numeric>

namespace mimo {
namespace {

bool single(Communicator* group) { return !group || group->size() == 1; }

Tensor sum_over(Communicator* group, const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  copy_into(y, x);
  group->all_reduce(y, ReduceOp::sum, current_stream()).wait();
  return y;
}

}  // namespace

Tensor copy_to_group(const Tensor& x, Communicator* group) {
  if (single(group)) return x;
  return record(x.detach(), "copy_to_group", {x},
                [in = x.node(), group](const Tensor& dy) { accumulate(in, sum_over(group, dy)); });
}

Tensor reduce_from_group(const Tensor& x, Communicator* group) {
  if (single(group)) return x;
  return record(sum_over(group, x), "reduce_from_group", {x},
                [in = x.node()](const Tensor& dy) { accumulate(in, dy); });
}

Tensor gather_columns(const Tensor& x, Communicator* group, std::vector<int64_t> counts) {
  if (single(group)) return x;
  if (counts.empty()) counts.assign(group->size(), x.cols());
  MIMO_CHECK(counts[group->rank()] == x.cols(), "counts say " + std::to_string(counts[group->rank()]) +
                                                    " columns, x is " + to_string(x.shape()));
  const int64_t rows = x.rows(), total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const int64_t begin = std::accumulate(counts.begin(), counts.begin() + group->rank(), int64_t{0});
  // The ranks' blocks arrive one after the other; a copy puts them side by side.
  const Tensor blocks = Tensor::empty({rows * total}, x.dtype(), x.device());
  std::vector<int64_t> sizes;
  for (int64_t c : counts) sizes.push_back(rows * c);
  group->all_gather(contiguous(x), blocks, sizes, current_stream()).wait();
  Dims shape = x.shape();
  shape.back() = total;
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  int64_t column = 0;
  for (int64_t c : counts) {
    Dims part = x.shape();
    part.back() = c;
    copy_into(y.columns(column, c), blocks.slice(rows * column, rows * (column + c)).view(part));
    column += c;
  }
  return record(y, "gather_columns", {x}, [in = x.node(), begin, count = x.cols()](const Tensor& dy) {
    accumulate(in, contiguous(dy.columns(begin, count)));
  });
}

}  // namespace mimo
