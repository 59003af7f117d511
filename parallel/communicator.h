// A communicator is small: collectives and grouped send/receive of raw buffers among a fixed list of world
// ranks. Sums run in rank order, so every rank gets equal bits in every run; bf16 is summed in float and
// rounded once. Counts are in elements and may differ by rank; all ranks pass the same ones. All
// communicators are created once, at start. A failed operation throws.
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

// A pending operation: keeps its buffers alive; wait() returns when they may be used, test() says whether
// they may. A Work that is dropped waits.
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
  // max and min of a NaN are NaN.
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
  // Prints why and ends the job on all ranks of the world with status 1; from any thread.
  [[noreturn]] virtual void abort(std::string_view why) = 0;
};

// The communicator of a single rank: every operation is a copy or nothing.
std::shared_ptr<Communicator> self_communicator(int world_rank = 0);

// Where an MPI communicator changes its ways; tests make them tiny.
struct Limits {
  int64_t message = (int64_t{1} << 30) - 1;  // elements of one message
  int64_t scratch = int64_t{1} << 24;        // bytes of received data that await their sum
  int64_t direct = int64_t{1} << 16;         // extra bytes a rank may receive to save a round of messages
};

// The world and the groups cut from it.
class World {
 public:
  virtual ~World() = default;
  virtual Communicator& world() = 0;
  // A new communicator of these ranks, in this order; collective over them, others get null at once. Ranks in
  // several groups create them in one order that all share (sorted, say): then creation cannot deadlock.
  virtual std::shared_ptr<Communicator> create(const Ranks&, const Limits& = {}) = 0;
  virtual int node_rank() const = 0;  // this rank among those on its machine
  virtual int node_size() const = 0;
};

std::unique_ptr<World> self_world();
// MPI_Init_thread (FUNNELED) on construction, MPI_Finalize on destruction; one may live at a time. Left by an
// exception, it aborts the job: the other ranks wait for this one.
std::unique_ptr<World> mpi_world(int* argc, char*** argv);
// The MPI world where a launcher started this process, else a world of one.
std::unique_ptr<World> open_world(int* argc, char*** argv);

// Over NCCL, bootstrapped by an MPI one of the same ranks; throws where the build has none.
std::shared_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Device);

}  // namespace mimo
