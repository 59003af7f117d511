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
#include "parallel/world.h"

namespace mimo {
namespace {

// Several operations may be in flight, each of which takes its own turn to get on: collectives, which all
// ranks start in the same order, each have a tag of their own (MPI has at least 2^15).
constexpr int kExchange = 1, kCollective = 16, kCollectiveTags = 1 << 14;

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

void reduce_in_order(const std::vector<const void*>& in, const Buffer& out, ReduceOp op) {
  const auto of = [&]<class T>(T) { reduce_in_order<T>(in, out.count, out.data, op); };
  switch (out.dtype) {
    case DType::f32:
      return of(float{});
    case DType::bf16:
      return of(bf16{});
    case DType::f64:
      return of(double{});
    case DType::i32:
      return of(int32_t{});
    case DType::i64:
      return of(int64_t{});
    case DType::u8:
      return of(uint8_t{});
  }
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
      refuse(p, code, got);
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
  [[noreturn, gnu::noinline]] static void refuse(const Pending& p, int code, int got) {
    throw std::runtime_error(std::string(p.is_receive ? "message from" : "message to") + " rank " +
                             std::to_string(p.peer) + " of the group: expected " +
                             std::to_string(p.buffer.count) + " elements of " + name_of(p.buffer.dtype) +
                             ", found " +
                             (code == MPI_SUCCESS ? std::to_string(got) : "the error " + error_text(code)));
  }
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

// A group's ranks and limits, as an operation in flight needs them.
struct Group {
  MPI_Comm comm;
  int rank = 0, size = 1;
  Limits limits;

  // The peers in an order that spreads the traffic: in turn k everyone sends to another rank.
  int to(int k) const { return (rank + k) % size; }
  int from(int k) const { return (rank + size - k) % size; }
};

// Sends in[begin[r], begin[r] + counts[r]) to every rank r and reduces what comes for this one, in rank
// order, a piece at a time. `out` may be the part of `in` that is this rank's.
class Reduction {
 public:
  Reduction(const Group& group, int tag, Buffer in, std::vector<int64_t> counts, std::vector<int64_t> begin,
            Buffer out, ReduceOp op)
      : group_(group),
        in_(std::move(in)),
        out_(std::move(out)),
        counts_(std::move(counts)),
        begin_(std::move(begin)),
        op_(op),
        most_(*std::max_element(counts_.begin(), counts_.end())),
        piece_(std::clamp<int64_t>(group.limits.scratch / (size_of(in_.dtype) * group.size), 1,
                                   std::max<int64_t>(1, most_))),
        scratch_(allocate((group.size - 1) * piece_ * size_of(in_.dtype), Device{})),
        summands_(static_cast<size_t>(group.size)),
        messages_(group.comm, tag, group.limits.message) {
    check_host(in_);
    if (most_ > 0) post();
  }

  bool finish(bool block) {
    while (at_ < most_) {
      if (!messages_.finish(block)) return false;
      if (const int64_t mine = length(group_.rank); mine > 0)
        reduce_in_order(summands_, part(out_, at_, mine), op_);
      at_ += piece_;
      if (at_ < most_) post();
    }
    return true;
  }

 private:
  int64_t length(int r) const { return std::clamp<int64_t>(counts_[r] - at_, 0, piece_); }
  void post() {
    const int64_t mine = length(group_.rank), size = size_of(in_.dtype);
    for (int k = 1; k < group_.size; ++k) {
      const Buffer slot(static_cast<char*>(scratch_->data) + (k - 1) * piece_ * size, mine, in_.dtype);
      summands_[group_.from(k)] = slot.data;
      messages_.receive(slot, group_.from(k));
    }
    for (int k = 1; k < group_.size; ++k)
      messages_.send(part(in_, begin_[group_.to(k)] + at_, length(group_.to(k))), group_.to(k));
    summands_[group_.rank] = part(in_, begin_[group_.rank] + at_, mine).data;
  }

  Group group_;
  Buffer in_, out_;
  std::vector<int64_t> counts_, begin_;
  ReduceOp op_;
  int64_t at_ = 0, most_, piece_;
  std::shared_ptr<Storage> scratch_;
  std::vector<const void*> summands_;
  Messages messages_;
};

// An all_reduce in flight: a reduction to parts, then the gathering of these, or a reduction of all to all.
class AllReduce {
 public:
  AllReduce(const Group& group, int tag, const Buffer& x, ReduceOp op)
      : group_(group),
        x_(x),
        counts_(static_cast<size_t>(group.size)),
        begin_(counts_),
        gathered_(group.comm, tag, group.limits.message) {
    const int64_t n = group.size;
    direct_ = reduces_directly(x.count * size_of(x.dtype), n, group.limits);
    for (int64_t r = 0; r < n; ++r) {
      begin_[r] = direct_ ? 0 : r * x.count / n;
      counts_[r] = direct_ ? x.count : (r + 1) * x.count / n - begin_[r];
    }
    reduction_.emplace(group, tag, x, counts_, begin_, part(x, begin_[group.rank], counts_[group.rank]), op);
  }
  AllReduce(const AllReduce&) = delete;
  ~AllReduce() {
    if (std::uncaught_exceptions() > 0) return;
    try {
      finish(true);
    } catch (const std::exception& e) {
      std::cerr << "error: a sum that nobody waited for: " << e.what() << '\n';
    }
  }

  bool finish(bool block) {
    if (reduction_) {
      if (!reduction_->finish(block)) return false;
      reduction_.reset();
      if (direct_) return true;
      for (int k = 1; k < group_.size; ++k) {
        const int r = group_.from(k);
        gathered_.receive(part(x_, begin_[r], counts_[r]), r);
      }
      for (int k = 1; k < group_.size; ++k)
        gathered_.send(part(x_, begin_[group_.rank], counts_[group_.rank]), group_.to(k));
    }
    return gathered_.finish(block);
  }

 private:
  Group group_;
  Buffer x_;
  bool direct_ = false;
  std::vector<int64_t> counts_, begin_;
  std::optional<Reduction> reduction_;
  Messages gathered_;
};

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, Ranks ranks, const Limits& limits)
      : group_{.comm = comm, .limits = limits}, ranks_(std::move(ranks)) {
    MPI(Comm_set_errhandler, comm, MPI_ERRORS_RETURN);
    MPI(Comm_rank, comm, &group_.rank);
    MPI(Comm_size, comm, &group_.size);
  }

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size; }
  const Ranks& ranks() const override { return ranks_; }

  Work all_reduce(Buffer x, ReduceOp op, Stream&) override {
    if (group_.size == 1 || x.count == 0) return {};
    const auto sum = std::make_shared<AllReduce>(group_, next_tag(), x, op);
    return Work([sum](bool block) { return sum->finish(block); });
  }

  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream&) override {
    const std::vector<int64_t> begin = begins(counts, in, size());
    MIMO_CHECK(out.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    Reduction(group_, next_tag(), in, {counts.begin(), counts.end()}, begin, out, ReduceOp::sum).finish(true);
    return {};
  }

  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    const std::vector<int64_t> begin = begins(counts, out, size());
    MIMO_CHECK(in.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    Messages messages(group_.comm, next_tag(), group_.limits.message);
    for (int k = 1; k < size(); ++k)
      messages.receive(part(out, begin[group_.from(k)], counts[group_.from(k)]), group_.from(k));
    for (int k = 1; k < size(); ++k) messages.send(in, group_.to(k));
    copy(in, part(out, begin[rank()], counts[rank()]), stream);
    messages.finish(true);
    return {};
  }

  Work broadcast(Buffer x, int root, Stream&) override {
    check_host(x);
    const WaitsForOthers waits;
    for (int64_t begin = 0; begin < x.count; begin += group_.limits.message) {
      const Buffer c = part(x, begin, std::min(group_.limits.message, x.count - begin));
      MPI(Bcast, c.data, static_cast<int>(c.count), mpi_type(c.dtype), root, group_.comm);
    }
    return {};
  }

  Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out, std::span<const int64_t> receive,
                  Stream& stream) override {
    const std::vector<int64_t> in_begin = begins(send, in, size()), out_begin = begins(receive, out, size());
    MIMO_CHECK(send[rank()] == receive[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    Messages messages(group_.comm, next_tag(), group_.limits.message);
    for (int k = 1; k < size(); ++k)
      messages.receive(part(out, out_begin[group_.from(k)], receive[group_.from(k)]), group_.from(k));
    for (int k = 1; k < size(); ++k)
      messages.send(part(in, in_begin[group_.to(k)], send[group_.to(k)]), group_.to(k));
    copy(part(in, in_begin[rank()], send[rank()]), part(out, out_begin[rank()], receive[rank()]), stream);
    messages.finish(true);
    return {};
  }

  Work exchange(std::span<const P2P> list, Stream&) override {
    auto messages = std::make_shared<Messages>(group_.comm, kExchange, group_.limits.message);
    for (const P2P& m : list)  // receives first: what comes early then lands in its place
      if (!m.send) messages->receive(m.buffer, m.peer);
    for (const P2P& m : list)
      if (m.send) messages->send(m.buffer, m.peer);
    return Work([messages](bool block) { return messages->finish(block); });
  }

  void barrier() override {
    const WaitsForOthers waits;
    MPI(Barrier, group_.comm);
  }

  void abort(std::string_view why) override {
    const std::string rank = std::to_string(ranks_[group_.rank]);
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
  // Of the collective that starts now, the same on all ranks.
  int next_tag() { return kCollective + static_cast<int>(started_++ % kCollectiveTags); }

  Group group_;
  Ranks ranks_;
  const std::thread::id thread_ = std::this_thread::get_id();  // where MPI calls are made
  uint64_t started_ = 0;                                       // collectives
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
