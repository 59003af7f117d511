#include "kernels/cross_entropy.h"

#include "tests/cuda/case.h"

namespace mimo::op_test {
namespace {

struct Slice {
  int64_t rows, first, cols, pad;
};
// Rows that begin on every kind of boundary, none, few, and columns for three rounds of four vectors of every
// thread (of few threads, and of many).
const Slice shapes[] = {{3, 0, 64, 0}, {9, 5, 37, 2},    {17, 0, 1, 0},    {5, 100, 5, 0},
                        {4, 7, 0, 3},  {2, 0, 13001, 0}, {2, 3, 50003, 6}, {0, 0, 16, 0}};

// Some rows have no label, some one that another rank holds.
std::vector<int32_t> labels(const Slice& s) {
  std::vector<int32_t> v;
  for (int64_t i = 0; i < s.rows; ++i)
    v.push_back(i % 3 == 1 ? -1
                           : static_cast<int32_t>(i % 3 == 2 ? s.first + s.cols + i
                                                             : s.first + i * 5 % (s.cols + 1)));
  return v;
}
template <class T>
Operand<const T> logits(Case<T>& c, const Slice& s) {
  return c.in("logits", s.rows, s.cols, s.pad);
}
std::vector<double> values(const Slice& s, double first, double step) {
  std::vector<double> v;
  for (int64_t i = 0; i < s.rows; ++i) v.push_back(first + step * static_cast<double>(i % 7));
  return v;
}

TEST(CudaCrossEntropy, Max) {
  for (const Slice& s : shapes)
    for (bool arg : {true, false})
      check_cuda([&]<class T>(Case<T>& c) {
        return CrossEntropyMax<T>{
            .rows = s.rows,
            .first = s.first,
            .cols = s.cols,
            .logits = logits(c, s),
            .max = c.acc_out("max", s.rows),
            .arg = arg ? c.exact("arg", std::vector<int32_t>(static_cast<size_t>(s.rows), -1)) : nullptr};
      });
}

// The lowest of equal ones, wherever vectors and threads end; minus infinity and NaN.
TEST(CudaCrossEntropy, LowestIndexWinsTies) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Slice& s : {Slice{8, 10, 37, 0}, Slice{8, 0, 4100, 3}}) {
    std::vector<double> z(static_cast<size_t>(s.rows * s.cols), 0.5);
    const auto set = [&](int64_t row, int64_t col, double x) {
      z[static_cast<size_t>(row * s.cols + col)] = x;
    };
    set(1, s.cols - 1, 2), set(1, s.cols / 2, 2);
    set(2, s.cols - 1, 2);
    set(3, 2, 2), set(3, 3, 2), set(3, s.cols - 2, 2);
    for (int64_t c = 0; c < s.cols; ++c) set(4, c, -infinity), set(5, c, -infinity), set(6, c, NAN);
    set(5, s.cols - 3, -3);
    set(7, 1, NAN), set(7, 20, infinity);
    check_cuda([&]<class T>(Case<T>& c) {
      return CrossEntropyMax<T>{.rows = s.rows,
                                .first = s.first,
                                .cols = s.cols,
                                .logits = c.in("logits", s.rows, s.cols, s.pad, z),
                                .max = c.acc_out("max", s.rows),
                                .arg = c.exact("arg", std::vector<int32_t>(8, -1))};
    });
  }
}

TEST(CudaCrossEntropy, Arg) {
  std::vector<double> here, max;
  std::vector<int32_t> arg;
  for (int i = 0; i < 300; ++i) {
    here.push_back(i % 5), max.push_back(i % 3 ? 4 : i % 5), arg.push_back(i);
    if (i % 50 == 7) max.back() = NAN;
    if (i % 50 == 9) here.back() = max.back() = -INFINITY;
  }
  for (int64_t rows : {300, 1, 0})
    check_cuda([&]<class T>(Case<T>& c) {
      return CrossEntropyArg<T>{.rows = rows,
                                .here = c.acc_in("here", 300, 1, here),
                                .max = c.acc_in("max", 300, 1, max),
                                .arg = c.exact("arg", arg)};
    });
}

// exp(z - max) is 2^x, whose argument is rounded twice, by log2 e and by the product: |z - max| roundings of
// it, on average over exp at most 1. All that together is an error of the maximum. In the loss there is an
// error of log(sum), equal to one of the sum.
const Disturbed kMax{"max", [](double x, int64_t) { return x + (ulps::kEx2 + 1) * ulps::kFloat; }},
    kSum{"sum", [](double x, int64_t) { return x * (1 + ulps::kLogf * ulps::kFloat * std::log(x)); }};

// The maximum is one of all ranks: above any here.
TEST(CudaCrossEntropy, Sum) {
  for (const Slice& s : shapes)
    check_cuda(
        [&]<class T>(Case<T>& c) {
          return CrossEntropySum<T>{.rows = s.rows,
                                    .first = s.first,
                                    .cols = s.cols,
                                    .logits = logits(c, s),
                                    .labels = c.ints(labels(s)),
                                    .max = c.acc_in("max", s.rows, 1, values(s, 2, 0.25)),
                                    .sum = c.acc_out("sum", s.rows),
                                    .target = c.acc_out("target", s.rows)};
        },
        {.inputs = {kMax}});
}

TEST(CudaCrossEntropy, Grad) {
  for (const Slice& s : shapes)
    for (bool loss : {true, false})
      check_cuda(
          [&]<class T>(Case<T>& c) {
            return CrossEntropyGrad<T>{.rows = s.rows,
                                       .first = s.first,
                                       .cols = s.cols,
                                       .logits = c.inout("logits", s.rows, s.cols, s.pad),
                                       .labels = c.ints(labels(s)),
                                       .max = c.acc_in("max", s.rows, 1, values(s, 2, 0.25)),
                                       .sum = c.acc_in("sum", s.rows, 1, values(s, 1.5, 3)),
                                       .target = c.acc_in("target", s.rows, 1, values(s, -1, 0.25)),
                                       .dloss = c.acc_in("dloss", 1, 1, {0.375}),
                                       .loss = loss ? c.acc_out("loss", s.rows) : nullptr};
          },
          {.inputs = {kMax, kSum}});
}

struct Loss {
  double once, value, twice;  // the result after one run and after another, and what one adds, in acc_t<T>
};
template <class T, class Context>
Loss loss(const Context& context, int64_t rows) {
  const Slice s{rows, 0, 11, 0};
  Case<T> c(context);
  double* result = c.exact("result", std::vector<double>{1});
  acc_t<T>* value = c.acc_out("value", 1);
  const CrossEntropyLoss<T> op{.rows = rows,
                               .labels = c.ints(labels(s)),
                               .sum = c.acc_in("sum", rows, 1, values(s, 1.5, 3)),
                               .target = c.acc_in("target", rows, 1, values(s, -1, 0.25)),
                               .result = result,
                               .value = value};
  run_with_scratch(context, op);
  const double once = read(result, 1)[0];
  run_with_scratch(context, op);
  return {once, static_cast<double>(read(value, 1)[0]), read(result, 1)[0]};
}

// Sums in double: the order of terms, and errors of log, may change no more than their last digits.
template <class T>
void check_loss(int64_t rows) {
  const double want = loss<T>(Cpu{}, rows).once, digit = 0x1p-52 * want * static_cast<double>(rows + 1);
  double first = 0;
  for (size_t i = 0; i < ways().size(); ++i) {
    set_way(static_cast<int>(i));
    const Loss have = loss<T>(cuda_context(), rows);
    EXPECT_NEAR(have.once, want, digit);
    EXPECT_FLOAT_EQ(static_cast<float>(have.value), static_cast<float>(want - 1));
    EXPECT_NEAR(have.twice, 2 * want - 1, 2 * digit);
    if (i == 0) first = have.once;
    EXPECT_TRUE(!ways()[i].same_bits || have.once == first) << "depends on the order of threads";
  }
  set_way(0);
}

TEST(CudaCrossEntropy, Loss) {
  for (int64_t rows : {0, 1, 700, 256 * 70}) {
    check_loss<float>(rows);
    if (rows < 1000) check_loss<bf16>(rows);
  }
}

}  // namespace
}  // namespace mimo::op_test
