// A communicator is small: collectives and grouped send/receive of raw buffers among a fixed list of world
// ranks. Sums run in rank order, so every rank gets equal bits in every run. Counts are in elements and may
// differ by rank. All communicators are created once, at start, in one order on all ranks.
#pragma once
#include <functional>
#include <memory>
#include <span>
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
  Buffer() = default;
  Buffer(void* d, int64_t n, DType t) : data(d), count(n), dtype(t) {}
  Buffer(const Tensor& t);  // contiguous tensors
};

// One message of an exchange; send and receive sides name each other's rank within the communicator.
struct P2P {
  bool send;
  int peer;
  Tensor tensor;  // kept alive until the Work is complete; empty ones are left out on both sides
};

// A pending operation: keeps its buffers alive; wait() returns when they may be used.
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
  virtual Work all_reduce(Buffer inout, ReduceOp, Stream&) = 0;
  virtual Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) = 0;
  virtual Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) = 0;  // sum
  virtual Work broadcast(Buffer inout, int root, Stream&) = 0;
  virtual Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out,
                          std::span<const int64_t> receive, Stream&) = 0;
  // Messages between a pair of ranks match in the order in which each side posts them.
  virtual Work exchange(std::span<const P2P>, Stream&) = 0;
  virtual void barrier() = 0;
  // Ends the job on all ranks of the world.
  [[noreturn]] virtual void abort(std::string_view why) = 0;
};

// The communicator of a single rank: every operation is a copy or nothing.
std::unique_ptr<Communicator> self_communicator();

// The world and the groups cut from it.
class World {
 public:
  virtual ~World() = default;
  virtual Communicator& world() = 0;
  // Collective over the world: every rank calls it with the same list of ranks; ranks outside get null.
  virtual std::shared_ptr<Communicator> create(const Ranks&) = 0;
  virtual int node_rank() const = 0;  // this rank among those on its machine
  virtual int node_size() const = 0;
};

std::unique_ptr<World> self_world();
// MPI_Init_thread (FUNNELED) on construction, MPI_Finalize on destruction.
std::unique_ptr<World> mpi_world(int* argc, char*** argv);

}  // namespace mimo
