#include "parallel/buffers.h"

#include <cstring>
#include <numeric>

#include "tensor/cuda.h"

namespace mimo {

Buffer::Buffer(const Tensor& t)
    : data(t.raw()), count(t.numel()), dtype(t.dtype()), device(t.device()), owner(t.storage()) {
  MIMO_CHECK(t.contiguous(), "a message of a column slice " + to_string(t.shape()));
}

Buffer part(const Buffer& b, int64_t begin, int64_t count) {
  Buffer p = b;
  p.data = static_cast<char*>(b.data) + begin * size_of(b.dtype);
  p.count = count;
  return p;
}

std::vector<int64_t> begins(std::span<const int64_t> counts, const Buffer& b, int ranks) {
  MIMO_CHECK(static_cast<int>(counts.size()) == ranks, "one count a rank");
  std::vector<int64_t> begin(counts.size() + 1, 0);
  for (size_t r = 0; r < counts.size(); ++r) begin[r + 1] = begin[r] + counts[r];
  MIMO_CHECK(begin.back() == b.count, "counts of " + std::to_string(begin.back()) +
                                          " elements for a buffer of " + std::to_string(b.count));
  return begin;
}

void* cuda_stream(const Stream& stream) {
  const Cuda* cuda = std::get_if<Cuda>(&stream.context);
  MIMO_CHECK(cuda, "device memory on a stream of the host");
  return cuda->stream;
}

void copy(const Buffer& from, const Buffer& to, Stream& stream) {
  MIMO_CHECK(from.count == to.count && from.dtype == to.dtype, "sizes of the two buffers differ");
  if (from.count == 0 || from.data == to.data) return;
  if (on_device(from) || on_device(to))
    cuda::copy(to.data, from.data, bytes(from), cuda_stream(stream));
  else
    std::memmove(to.data, from.data, bytes(from));
}

std::string broadcast(Communicator& comm, std::string text, int root) {
  int64_t length = static_cast<int64_t>(text.size());
  comm.broadcast({&length, 1, DType::i64}, root, current_stream()).wait();
  text.resize(static_cast<size_t>(length));
  comm.broadcast({text.data(), length, DType::u8}, root, current_stream()).wait();
  return text;
}

std::vector<std::string> all_gather(Communicator& comm, std::string text) {
  Stream& stream = current_stream();
  int64_t length = static_cast<int64_t>(text.size());
  std::vector<int64_t> lengths(static_cast<size_t>(comm.size())), ones(lengths.size(), 1);
  comm.all_gather({&length, 1, DType::i64}, {lengths.data(), comm.size(), DType::i64}, ones, stream).wait();
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  std::string bytes(static_cast<size_t>(total), '\0');
  comm.all_gather({text.data(), length, DType::u8}, {bytes.data(), total, DType::u8}, lengths, stream).wait();
  std::vector<std::string> all;
  size_t begin = 0;
  for (int64_t n : lengths) {
    all.push_back(bytes.substr(begin, static_cast<size_t>(n)));
    begin += static_cast<size_t>(n);
  }
  return all;
}

}  // namespace mimo
