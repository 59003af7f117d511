// A communicator is small: collectives and grouped send/receive of raw buffers among a fixed list of world
// ranks. Counts are in elements and may differ by rank; all ranks pass the same ones. All communicators are
// created once, at start. A failed operation throws.
//
// Sums give equal bits on all ranks, and the same ones in every run of a job. Host memory, and device memory
// that is staged through it, is summed in rank order, bf16 in float and rounded once. NCCL sums in an order
// of its own, which is fixed for a machine, its ranks and the count; bf16 may be rounded at every addition.
//
// Memory of a device is used in the order of the stream that is passed: an operation sees what was queued
// there before it, and what is queued after Work::wait() sees what it did.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/grid.h"
#include "tensor/tensor.h"

namespace mimo {

enum class ReduceOp { sum, max, min };

struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  DType dtype = DType::f32;
  Device device;                      // whose memory it is
  std::shared_ptr<const void> owner;  // keeps the memory alive until the operation is complete; may be null
  Buffer() = default;
  Buffer(void* d, int64_t n, DType t, Device at = {}, std::shared_ptr<const void> keep = nullptr)
      : data(d), count(n), dtype(t), device(at), owner(std::move(keep)) {}
  Buffer(const Tensor& t);  // contiguous tensors
};

// One message of an exchange; send and receive sides name each other's rank within the communicator.
struct P2P {
  bool send;
  int peer;
  Buffer buffer;  // empty ones are left out on both sides
};

// A pending operation: keeps its buffers alive. After wait() they may be used: host memory at once, device
// memory by what is queued on the operation's stream from then on, for which the host does not wait. test()
// says whether they may and lets the operation get on. A Work that is dropped waits.
class Work {
 public:
  Work() = default;
  explicit Work(std::function<bool(bool block)> poll) : poll_(std::move(poll)) {}
  void wait() {
    if (poll_) {
      poll_(true);
      poll_ = nullptr;
    }
  }
  bool test() {
    if (poll_ && poll_(false)) poll_ = nullptr;
    return !poll_;
  }

 private:
  std::function<bool(bool)> poll_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const Ranks& ranks() const = 0;  // world ranks, by rank here
  // max and min of a NaN are NaN; over NCCL they may be another rank's number.
  virtual Work all_reduce(Buffer inout, ReduceOp, Stream&) = 0;
  // out = the ranks' `in`, in rank order; `in` may be its own place in `out`.
  virtual Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) = 0;
  // `in` holds counts[r] elements for every rank r, `out` the sum of those for this one; it may be their
  // place.
  virtual Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) = 0;
  virtual Work broadcast(Buffer inout, int root, Stream&) = 0;
  // send[r] elements of `in`, laid end to end, go to rank r; receive[r] of `out` come from it.
  virtual Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out,
                          std::span<const int64_t> receive, Stream&) = 0;
  // Messages between a pair of ranks match in the order in which each side posts them.
  virtual Work exchange(std::span<const P2P>, Stream&) = 0;
  virtual void barrier() = 0;
  // What went wrong behind the calls, "" for nothing; from any thread.
  virtual std::string failure() { return {}; }
  // Prints why (unless empty) and ends the job on all ranks of the world with status 1; from any thread.
  [[noreturn]] virtual void abort(std::string_view why) = 0;
};

}  // namespace mimo
