// Everything but broadcast and barrier is made of sends and receives that are posted at once: with more ranks
// than cores a round of messages costs a turn of every rank on its core, so few rounds beat few bytes.
//
// all_reduce, S bytes, n ranks, two ways, both summing in rank order:
//   direct    every rank gets all buffers and sums them itself: 1 round, (n - 1) S received
//   in parts  reduce_scatter, then all_gather: 2 rounds, 2 (n - 1) S / n received
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <iostream>
#include <numeric>
#include <optional>
#include <thread>

#include "parallel/buffers.h"
#include "parallel/launcher.h"
#include "parallel/watchdog.h"

namespace mimo {
namespace {

enum Tag { kCollective = 1, kExchange = 2 };  // an exchange may be in flight while collectives run

std::string error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, length);
}

void check(int code, const char* call) {
  if (code != MPI_SUCCESS) throw std::runtime_error(std::string(call) + ": " + error_text(code));
}
#define MPI(call, ...) check(MPI_##call(__VA_ARGS__), "MPI_" #call)

void check_host(const Buffer& b) { MIMO_CHECK(!on_device(b), "device memory in a message of MPI's"); }

MPI_Datatype mpi_type(DType t) {
  switch (t) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::bf16:
      return MPI_UINT16_T;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
    case DType::i64:
      return MPI_INT64_T;
    case DType::u8:
      return MPI_UINT8_T;
  }
  throw std::logic_error("no such dtype");
}

template <class A>
A combine(A a, A b, ReduceOp op) {
  if (op == ReduceOp::sum) {
    if constexpr (std::is_integral_v<A>)
      return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));  // wraps
    else
      return a + b;
  }
  const bool take_b = op == ReduceOp::max ? b > a : b < a;
  return take_b || b != b ? b : a;  // a NaN stays
}

// out[i] = in[0][i] + in[1][i] + ...; out may be one of the inputs.
template <class T>
void reduce_in_order(const std::vector<const void*>& in, int64_t count, void* out, ReduceOp op) {
  using A = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  constexpr int64_t kBlock = 1024;
  A sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(in[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = first[i];
    for (size_t r = 1; r < in.size(); ++r) {
      const T* x = static_cast<const T*>(in[r]) + begin;
      if (op == ReduceOp::sum)
        for (int64_t i = 0; i < n; ++i) sum[i] = combine<A>(sum[i], x[i], ReduceOp::sum);
      else
        for (int64_t i = 0; i < n; ++i) sum[i] = combine<A>(sum[i], x[i], op);
    }
    T* y = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(sum[i]);
  }
}

void reduce_in_order(const std::vector<const void*>& in, Buffer out, ReduceOp op) {
  if (out.dtype == DType::i32) return reduce_in_order<int32_t>(in, out.count, out.data, op);
  if (out.dtype == DType::i64) return reduce_in_order<int64_t>(in, out.count, out.data, op);
  if (out.dtype == DType::u8) return reduce_in_order<uint8_t>(in, out.count, out.data, op);
  dispatch(out.dtype, [&]<class T>() { reduce_in_order<T>(in, out.count, out.data, op); });
}

// Messages in flight.
class Messages {
 public:
  Messages(MPI_Comm comm, int tag, int64_t limit) : comm_(comm), tag_(tag), limit_(limit) {}
  Messages(const Messages&) = delete;
  ~Messages() {
    if (pending_.empty()) return;
    const WaitsForOthers waits;
    // Memory that MPI may still write to must outlive this: wait, but not while the rank is failing.
    if (std::uncaught_exceptions() == 0)
      for (Pending& p : pending_) MPI_Wait(&p.request, MPI_STATUS_IGNORE);
    else
      new std::deque<Pending>(std::move(pending_));
  }

  void send(Buffer b, int peer) {
    for_each_chunk(b, [&](Buffer c) {
      Pending& p = pending_.emplace_back(Pending{MPI_REQUEST_NULL, c, peer, false});
      MPI(Isend, c.data, static_cast<int>(c.count), mpi_type(c.dtype), peer, tag_, comm_, &p.request);
    });
  }
  void receive(Buffer b, int peer) {
    for_each_chunk(b, [&](Buffer c) {
      Pending& p = pending_.emplace_back(Pending{MPI_REQUEST_NULL, c, peer, true});
      MPI(Irecv, c.data, static_cast<int>(c.count), mpi_type(c.dtype), peer, tag_, comm_, &p.request);
    });
  }

  // One by one: Open MPI 4.1's Waitall spins for ever when a message is longer than its buffer.
  bool finish(bool block) {
    std::optional<WaitsForOthers> waits;
    if (block && !pending_.empty()) waits.emplace();
    for (; !pending_.empty(); pending_.pop_front(), advance()) {
      Pending& p = pending_.front();
      MPI_Status status;
      int done = 1, got = 0;
      const int code = block ? MPI_Wait(&p.request, &status) : MPI_Test(&p.request, &done, &status);
      if (code == MPI_SUCCESS && !done) return false;
      if (code == MPI_SUCCESS && p.is_receive) MPI_Get_count(&status, mpi_type(p.buffer.dtype), &got);
      if (code == MPI_SUCCESS && (!p.is_receive || got == p.buffer.count)) continue;
      throw std::runtime_error(std::string(p.is_receive ? "message from" : "message to") + " rank " +
                               std::to_string(p.peer) + " of the group: expected " +
                               std::to_string(p.buffer.count) + " elements of " + name_of(p.buffer.dtype) +
                               ", found " +
                               (code == MPI_SUCCESS ? std::to_string(got) : "the error " + error_text(code)));
    }
    return true;
  }

 private:
  struct Pending {
    MPI_Request request;
    Buffer buffer;
    int peer;
    bool is_receive;
  };
  template <class F>
  void for_each_chunk(const Buffer& b, F&& f) {
    check_host(b);
    for (int64_t begin = 0; begin < b.count; begin += limit_)
      f(part(b, begin, std::min(limit_, b.count - begin)));
  }

  MPI_Comm comm_;
  int tag_;
  int64_t limit_;
  std::deque<Pending> pending_;
};

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, Ranks ranks, const Limits& limits)
      : comm_(comm), ranks_(std::move(ranks)), limits_(limits) {
    MPI(Comm_set_errhandler, comm_, MPI_ERRORS_RETURN);
    MPI(Comm_rank, comm_, &rank_);
    MPI(Comm_size, comm_, &size_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const Ranks& ranks() const override { return ranks_; }

  Work all_reduce(Buffer x, ReduceOp op, Stream& stream) override {
    const int64_t n = size_, bytes = x.count * size_of(x.dtype);
    if (n == 1 || x.count == 0) return {};
    if (reduces_directly(bytes, n, limits_)) {
      const std::vector<int64_t> all(size_, x.count);
      reduce(x, all, std::vector<int64_t>(size_, 0), x, op);
    } else {
      std::vector<int64_t> counts(size_), begin(size_);
      for (int64_t r = 0; r < n; ++r) {
        begin[r] = r * x.count / n;
        counts[r] = (r + 1) * x.count / n - begin[r];
      }
      const Buffer mine = part(x, begin[rank_], counts[rank_]);
      reduce(x, counts, begin, mine, op);
      all_gather(mine, x, counts, stream);
    }
    return {};
  }

  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) override {
    const std::vector<int64_t> begin = begins(counts, in, size_);
    MIMO_CHECK(out.count == counts[rank_] && in.dtype == out.dtype, "sizes of the two buffers differ");
    reduce(in, counts, begin, out, ReduceOp::sum);
    return {};
  }

  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    const std::vector<int64_t> begin = begins(counts, out, size_);
    MIMO_CHECK(in.count == counts[rank_] && in.dtype == out.dtype, "sizes of the two buffers differ");
    Messages messages(comm_, kCollective, limits_.message);
    for (int k = 1; k < size_; ++k) messages.receive(part(out, begin[from(k)], counts[from(k)]), from(k));
    for (int k = 1; k < size_; ++k) messages.send(in, to(k));
    copy(in, part(out, begin[rank_], counts[rank_]), stream);
    messages.finish(true);
    return {};
  }

  Work broadcast(Buffer x, int root, Stream&) override {
    check_host(x);
    const WaitsForOthers waits;
    for (int64_t begin = 0; begin < x.count; begin += limits_.message) {
      const Buffer c = part(x, begin, std::min(limits_.message, x.count - begin));
      MPI(Bcast, c.data, static_cast<int>(c.count), mpi_type(c.dtype), root, comm_);
    }
    return {};
  }

  Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out, std::span<const int64_t> receive,
                  Stream& stream) override {
    const std::vector<int64_t> in_begin = begins(send, in, size_), out_begin = begins(receive, out, size_);
    MIMO_CHECK(send[rank_] == receive[rank_] && in.dtype == out.dtype, "sizes of the two buffers differ");
    Messages messages(comm_, kCollective, limits_.message);
    for (int k = 1; k < size_; ++k)
      messages.receive(part(out, out_begin[from(k)], receive[from(k)]), from(k));
    for (int k = 1; k < size_; ++k) messages.send(part(in, in_begin[to(k)], send[to(k)]), to(k));
    copy(part(in, in_begin[rank_], send[rank_]), part(out, out_begin[rank_], receive[rank_]), stream);
    messages.finish(true);
    return {};
  }

  Work exchange(std::span<const P2P> list, Stream&) override {
    auto messages = std::make_shared<Messages>(comm_, kExchange, limits_.message);
    for (const P2P& m : list)  // receives first: what comes early then lands in its place
      if (!m.send) messages->receive(m.buffer, m.peer);
    for (const P2P& m : list)
      if (m.send) messages->send(m.buffer, m.peer);
    return Work([messages](bool block) { return messages->finish(block); });
  }

  void barrier() override {
    const WaitsForOthers waits;
    MPI(Barrier, comm_);
  }

  void abort(std::string_view why) override {
    const std::string rank = std::to_string(ranks_[rank_]);
    if (!why.empty()) std::cerr << "error: rank " + rank + ": " + std::string(why) + "\n" << std::flush;
    // Under FUNNELED, MPI belongs to the thread that started it, and that one may hang in a call (the
    // watchdog calls from another). Leaving without MPI_Finalize makes the launcher end all other ranks too.
    if (std::this_thread::get_id() != thread_) std::_Exit(1);
    // MPI_Abort itself may wait for a lock that a hanging call holds.
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::seconds(2));
      std::_Exit(1);
    }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the launcher takes our words before MPI's
    MPI_Abort(MPI_COMM_WORLD, 1);
    std::_Exit(1);
  }

 private:
  // The peers in an order that spreads the traffic: in turn k everyone sends to another rank.
  int to(int k) const { return (rank_ + k) % size_; }
  int from(int k) const { return (rank_ + size_ - k) % size_; }

  // Sends in[begin[r], begin[r] + counts[r]) to every rank r and reduces what comes for this one, in rank
  // order, a piece at a time. `out` may be the part of `in` that is this rank's.
  void reduce(Buffer in, std::span<const int64_t> counts, std::span<const int64_t> begin, Buffer out,
              ReduceOp op) {
    check_host(in);
    const int64_t size = size_of(in.dtype);
    const int64_t most = *std::max_element(counts.begin(), counts.end());
    const int64_t piece =
        std::clamp<int64_t>(limits_.scratch / (size * size_), 1, std::max<int64_t>(1, most));
    const auto scratch = allocate((size_ - 1) * piece * size, Device{});
    Messages messages(comm_, kCollective, limits_.message);
    std::vector<const void*> summands(size_);
    for (int64_t at = 0; at < most; at += piece) {
      const auto length = [&](int r) { return std::clamp<int64_t>(counts[r] - at, 0, piece); };
      const int64_t mine = length(rank_);
      for (int k = 1; k < size_; ++k) {
        const Buffer slot(static_cast<char*>(scratch->data) + (k - 1) * piece * size, mine, in.dtype);
        summands[from(k)] = slot.data;
        messages.receive(slot, from(k));
      }
      for (int k = 1; k < size_; ++k) messages.send(part(in, begin[to(k)] + at, length(to(k))), to(k));
      const Buffer own = part(in, begin[rank_] + at, mine);
      summands[rank_] = own.data;
      messages.finish(true);
      if (mine > 0) reduce_in_order(summands, part(out, at, mine), op);
    }
  }

  MPI_Comm comm_;
  Ranks ranks_;
  Limits limits_;
  const std::thread::id thread_ = std::this_thread::get_id();  // where MPI calls are made
  int rank_ = 0, size_ = 1;
};

std::string late_at_start() {
  // One message is enough: the lowest rank's, whose end is the job's.
  std::this_thread::sleep_for(std::chrono::seconds(std::min(2 * local_rank(), 20)));
  const std::string missing = missing_ranks();
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%g", start_timeout());
  return "MPI did not start within " + std::string(seconds) +
         " s (MIMO_START_TIMEOUT): not every rank has come" + (missing.empty() ? "" : ": " + missing);
}

class MpiWorld : public World {
 public:
  MpiWorld(int* argc, char*** argv) {
    // A rank that waits gives its core to whoever works: with more ranks than cores a small all_reduce took
    // 10 us so and 25 ms without, and where each has its core it costs 0.1 us.
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    int provided = 0;
    // Here a rank waits for all others; one of them may never come.
    const Deadline deadline(start_timeout(), late_at_start);
    MPI(Init_thread, argc, argv, MPI_THREAD_FUNNELED, &provided);
    if (provided < MPI_THREAD_FUNNELED) throw std::runtime_error("this MPI does not allow threads");
    int size = 1;
    MPI(Comm_size, MPI_COMM_WORLD, &size);
    Ranks all(size);
    std::iota(all.begin(), all.end(), 0);
    MPI_Comm comm = MPI_COMM_NULL, node = MPI_COMM_NULL;
    MPI(Comm_dup, MPI_COMM_WORLD, &comm);
    world_ = std::make_shared<MpiCommunicator>(comm, all, Limits{});
    MPI(Comm_split_type, MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI(Comm_rank, node, &node_rank_);
    MPI(Comm_size, node, &node_size_);
  }

  ~MpiWorld() override {
    if (std::uncaught_exceptions() > 0) world_->abort("left by an exception");
    MPI_Finalize();
  }

  Communicator& world() override { return *world_; }

  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits& limits) override {
    if (std::find(ranks.begin(), ranks.end(), world_->rank()) == ranks.end()) return nullptr;
    if (ranks.size() == 1) return self_communicator(ranks[0]);
    MPI_Group everyone = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    MPI_Comm comm = MPI_COMM_NULL;
    MPI(Comm_group, MPI_COMM_WORLD, &everyone);
    MPI(Group_incl, everyone, static_cast<int>(ranks.size()), ranks.data(), &group);
    MPI(Comm_create_group, MPI_COMM_WORLD, group, 0, &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&everyone);
    return std::make_shared<MpiCommunicator>(comm, ranks, limits);
  }

  int node_rank() const override { return node_rank_; }
  int node_size() const override { return node_size_; }

 private:
  std::shared_ptr<Communicator> world_;
  int node_rank_ = 0, node_size_ = 1;
};

}  // namespace

std::unique_ptr<World> mpi_world(int* argc, char*** argv) { return std::make_unique<MpiWorld>(argc, argv); }

std::unique_ptr<World> open_world(int* argc, char*** argv) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name)) return mpi_world(argc, argv);
  return self_world();
}

}  // namespace mimo
