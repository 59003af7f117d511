// Device memory over NCCL, loaded when it is first needed.
//
// A communicator has a stream of its own. Every operation waits there, by an event, for what the caller's
// stream holds; Work::wait() makes the caller's stream wait for the operation's event. The host waits only
// when a communicator is created or destroyed, and in the first messages of a pair, whose connection both
// ends make (a meeting of the ranks of one action: the plan's order excludes deadlock).
//
// What NCCL promises of sums: each is taken once and handed to all ranks, so all get equal bits. The order of
// the additions follows from topology, algorithm and count, all fixed in a job; it is not the ranks' order,
// and changes with the count. NVLS, sums made by NVLink switches, repeats neither bits nor order between
// calls (github.com/NVIDIA/nccl issue 1497): it is off unless NCCL_NVLS_ENABLE is set.
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <iostream>
#include <mutex>
#include <thread>

#include "kernels/cuda/library.h"
#include "parallel/buffers.h"
#include "parallel/transports.h"
#include "parallel/watchdog.h"
#include "tensor/cuda.h"

namespace mimo {
namespace {

constexpr double kCreateTimeout = 300;  // seconds
constexpr auto kAbortTimeout = std::chrono::seconds(1);

struct Api {
  Api() {
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess || version < 21800)
      throw std::runtime_error(library.path() + " is too old: expected NCCL 2.18 or newer, found " +
                               std::to_string(version));
  }
  const cuda::Library library{{"libnccl.so.2", "libnccl.so"}};
#define FUNCTION(name) decltype(::name)* const name = library.symbol<decltype(::name)>(#name)
  FUNCTION(ncclGetVersion);
  FUNCTION(ncclGetErrorString);
  FUNCTION(ncclGetLastError);
  FUNCTION(ncclGetUniqueId);
  FUNCTION(ncclCommInitRankConfig);
  FUNCTION(ncclCommDestroy);
  FUNCTION(ncclCommAbort);
  FUNCTION(ncclCommGetAsyncError);
  FUNCTION(ncclGroupStart);
  FUNCTION(ncclGroupEnd);
  FUNCTION(ncclAllReduce);
  FUNCTION(ncclAllGather);
  FUNCTION(ncclReduceScatter);
  FUNCTION(ncclReduce);
  FUNCTION(ncclBroadcast);
  FUNCTION(ncclSend);
  FUNCTION(ncclRecv);
#undef FUNCTION
};

const Api& api() {
  static const Api loaded = [] {
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    return Api();
  }();
  return loaded;
}

std::string error_text(ncclResult_t code, ncclComm_t comm) {
  std::string text = api().ncclGetErrorString(code);
  if (const char* last = api().ncclGetLastError(comm); last && *last) text += std::string(" (") + last + ")";
  return text;
}

void check(ncclResult_t code, const char* call, ncclComm_t comm = nullptr) {
  if (code != ncclSuccess) throw std::runtime_error(std::string(call) + ": " + error_text(code, comm));
}
#define NCCL(call, ...) check(api().nccl##call(__VA_ARGS__), "nccl" #call, line_->comm)

ncclDataType_t nccl_type(DType t) {
  switch (t) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u8:
      return ncclUint8;
  }
  throw std::logic_error("no such dtype");
}

ncclRedOp_t nccl_op(ReduceOp op) {
  return op == ReduceOp::sum ? ncclSum : op == ReduceOp::max ? ncclMax : ncclMin;
}

// The communicators of this process: an abort is one of all.
struct Alive {
  std::mutex mutex;
  std::vector<ncclComm_t> comms;
  std::atomic<bool> ending = false;
  static Alive& instance() {
    static Alive* all = new Alive;
    return *all;
  }
};

// What an operation needs, kept by the communicator and by what is pending.
struct Line {
  ncclComm_t comm = nullptr;
  Stream stream;
  void* ready = nullptr;      // event: what the caller's stream holds is done
  std::vector<void*> events;  // free ones, of operations

  // Ranks on one machine destroy a communicator together: see DeviceWorld for the order.
  ~Line() {
    if (comm) {
      {
        std::lock_guard lock(Alive::instance().mutex);
        std::erase(Alive::instance().comms, comm);
      }
      if (std::uncaught_exceptions() > 0) return;  // the job is about to be ended
      if (const ncclResult_t code = api().ncclCommDestroy(comm); code != ncclSuccess)
        std::cerr << "error: ncclCommDestroy: " + error_text(code, comm) + "\n";
    }
    for (void* e : events) cuda::destroy_event(e);
    if (ready) cuda::destroy_event(ready);
    if (const Cuda* cuda = std::get_if<Cuda>(&stream.context)) cuda::destroy_stream(cuda->stream);
  }
  void* take_event() {
    if (events.empty()) return cuda::create_event();
    void* e = events.back();
    events.pop_back();
    return e;
  }
};

// An operation under way.
struct Pending {
  std::shared_ptr<Line> line;
  void* caller;  // stream
  std::vector<Buffer> buffers;
  void* done = nullptr;  // event; null once somebody has waited

  Pending(std::shared_ptr<Line> l, void* c, std::vector<Buffer> b)
      : line(std::move(l)), caller(c), buffers(std::move(b)), done(line->take_event()) {
    cuda::record(done, cuda_stream(line->stream));
  }
  // Memory freed after this is used again on the caller's stream, hence later.
  bool finish(bool block) {
    if (!done) return true;
    if (block)
      cuda::wait(caller, done);
    else if (!cuda::done(done))
      return false;
    line->events.push_back(done);
    done = nullptr;
    buffers.clear();
    return true;
  }
  ~Pending() {
    try {
      finish(true);
    } catch (const std::exception& e) {
      std::cerr << "error: an operation that nobody waited for: " << e.what() << "\n";
    }
  }
};

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<Communicator> host, Device device, const Limits& limits)
      : host_(std::move(host)), limit_(limits.message), line_(std::make_shared<Line>()) {
    MIMO_CHECK(device.kind == Device::Kind::cuda, "NCCL between GPUs");
    Watchdog watchdog(*host_, kCreateTimeout);
    watchdog.begin("the creation of an NCCL communicator of " + std::to_string(size()) + " ranks");
    cuda::use_device(device.index);
    ncclUniqueId id{};
    if (rank() == 0) NCCL(GetUniqueId, &id);
    host_->broadcast({id.internal, NCCL_UNIQUE_ID_BYTES, DType::u8}, 0, current_stream()).wait();
    line_->stream = {device, Cuda{.stream = cuda::create_stream(true), .device = device.index}};
    line_->ready = cuda::create_event();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    ncclComm_t comm = nullptr;
    NCCL(CommInitRankConfig, &comm, size(), id, rank(), &config);
    line_->comm = comm;
    std::lock_guard lock(Alive::instance().mutex);
    Alive::instance().comms.push_back(comm);
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const Ranks& ranks() const override { return host_->ranks(); }

  Work all_reduce(Buffer x, ReduceOp op, Stream& stream) override {
    if (!on_device(x)) return host_->all_reduce(x, op, stream);
    return queue({x}, stream, [&] {
      for_each_chunk(x, [&](const Buffer& c) {
        NCCL(AllReduce, c.data, c.data, count(c), nccl_type(c.dtype), nccl_op(op), line_->comm, lane());
      });
    });
  }

  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    if (!on_device(in) && !on_device(out)) return host_->all_gather(in, out, counts, stream);
    const auto begin = begins(counts, out, size());
    MIMO_CHECK(in.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    return queue({in, out}, stream, [&] {
      if (equal(counts)) {
        NCCL(AllGather, in.data, out.data, count(in), nccl_type(in.dtype), line_->comm, lane());
        return;
      }
      copy(in, part(out, begin[rank()], in.count), line_->stream);
      grouped([&] {
        for_each_peer([&](int r) {
          send(in, r);
          receive(part(out, begin[r], counts[r]), r);
        });
      });
    });
  }

  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    if (!on_device(in) && !on_device(out)) return host_->reduce_scatter(in, out, counts, stream);
    const auto begin = begins(counts, in, size());
    MIMO_CHECK(out.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    return queue({in, out}, stream, [&] {
      if (equal(counts)) {
        NCCL(ReduceScatter, in.data, out.data, count(out), nccl_type(in.dtype), ncclSum, line_->comm, lane());
        return;
      }
      grouped([&] {
        for (int r = 0; r < size(); ++r) {
          Buffer sum = r == rank() ? out : Buffer();
          for_each_chunk(part(in, begin[r], counts[r]), [&](const Buffer& c) {
            NCCL(Reduce, c.data, sum.data, count(c), nccl_type(c.dtype), ncclSum, r, line_->comm, lane());
            if (r == rank()) sum = part(sum, c.count, sum.count - c.count);
          });
        }
      });
    });
  }

  Work broadcast(Buffer x, int root, Stream& stream) override {
    if (!on_device(x)) return host_->broadcast(x, root, stream);
    return queue({x}, stream, [&] {
      for_each_chunk(x, [&](const Buffer& c) {
        NCCL(Broadcast, c.data, c.data, count(c), nccl_type(c.dtype), root, line_->comm, lane());
      });
    });
  }

  Work all_to_all(Buffer in, std::span<const int64_t> send_counts, Buffer out,
                  std::span<const int64_t> receive_counts, Stream& stream) override {
    if (!on_device(in) && !on_device(out))
      return host_->all_to_all(in, send_counts, out, receive_counts, stream);
    const auto from = begins(send_counts, in, size()), to = begins(receive_counts, out, size());
    MIMO_CHECK(send_counts[rank()] == receive_counts[rank()] && in.dtype == out.dtype,
               "sizes of the two buffers differ");
    return queue({in, out}, stream, [&] {
      copy(part(in, from[rank()], send_counts[rank()]), part(out, to[rank()], receive_counts[rank()]),
           line_->stream);
      grouped([&] {
        for_each_peer([&](int r) {
          send(part(in, from[r], send_counts[r]), r);
          receive(part(out, to[r], receive_counts[r]), r);
        });
      });
    });
  }

  // A message to oneself has both its ends in one exchange.
  Work exchange(std::span<const P2P> list, Stream& stream) override {
    std::vector<P2P> host;
    std::vector<Buffer> buffers;
    for (const P2P& m : list)
      if (m.buffer.count > 0) on_device(m.buffer) ? buffers.push_back(m.buffer) : host.push_back(m);
    if (buffers.empty()) return host_->exchange(host, stream);
    Work work = queue(buffers, stream, [&] {
      grouped([&] {
        for (const P2P& m : list) {
          if (!on_device(m.buffer)) continue;
          m.send ? send(m.buffer, m.peer) : receive(m.buffer, m.peer);
        }
      });
    });
    if (host.empty()) return work;
    return Work([both = std::pair(work, host_->exchange(host, stream))](bool block) mutable {
      if (block) both.first.wait(), both.second.wait();
      const bool first = both.first.test(), second = both.second.test();
      return first && second;
    });
  }

  void barrier() override { host_->barrier(); }

  std::string failure() override {
    if (Alive::instance().ending) return {};
    ncclResult_t code = ncclSuccess;
    const ncclResult_t asked = api().ncclCommGetAsyncError(line_->comm, &code);
    if (asked != ncclSuccess) code = asked;
    if (code == ncclSuccess || code == ncclInProgress) return host_->failure();
    return "NCCL: " + error_text(code, line_->comm);
  }

  // First the message: when NCCL lets go, other ranks find errors of their own.
  void abort(std::string_view why) override {
    while (Alive::instance().ending.exchange(true))  // another thread is about to end the process
      std::this_thread::sleep_for(std::chrono::seconds(1));
    if (!why.empty())
      std::cerr << "error: rank " + std::to_string(ranks()[rank()]) + ": " + std::string(why) + "\n"
                << std::flush;
    static std::promise<void> done;
    std::thread([] {  // it may hang
      std::lock_guard lock(Alive::instance().mutex);
      for (ncclComm_t comm : Alive::instance().comms) api().ncclCommAbort(comm);
      done.set_value();
    })
        .detach();
    done.get_future().wait_for(kAbortTimeout);
    host_->abort({});
  }

 private:
  cudaStream_t lane() const { return static_cast<cudaStream_t>(cuda_stream(line_->stream)); }
  static size_t count(const Buffer& b) { return static_cast<size_t>(b.count); }

  template <class F>
  Work queue(std::vector<Buffer> buffers, Stream& stream, F&& operation) {
    for (const Buffer& b : buffers)
      MIMO_CHECK(b.count == 0 || b.device == line_->stream.device, "memory of another device");
    void* caller = cuda_stream(stream);
    cuda::record(line_->ready, caller);
    cuda::wait(lane(), line_->ready);
    operation();
    return Work([pending = std::make_shared<Pending>(line_, caller, std::move(buffers))](bool block) {
      return pending->finish(block);
    });
  }

  template <class F>
  void for_each_chunk(const Buffer& b, F&& f) {
    for (int64_t begin = 0; begin < b.count; begin += limit_)
      f(part(b, begin, std::min(limit_, b.count - begin)));
  }
  template <class F>
  void for_each_peer(F&& f) {
    for (int k = 1; k < size(); ++k) f((rank() + k) % size());
  }
  // For NCCL's own ways of gathering and scattering.
  bool equal(std::span<const int64_t> counts) const {
    return counts[0] <= limit_ && std::count(counts.begin(), counts.end(), counts[0]) == size();
  }

  template <class F>
  void grouped(F&& f) {
    NCCL(GroupStart);
    try {
      f();
    } catch (...) {
      api().ncclGroupEnd();
      throw;
    }
    NCCL(GroupEnd);
  }
  void send(const Buffer& b, int peer) {
    for_each_chunk(b, [&](const Buffer& c) {
      NCCL(Send, c.data, count(c), nccl_type(c.dtype), peer, line_->comm, lane());
    });
  }
  void receive(const Buffer& b, int peer) {
    for_each_chunk(b, [&](const Buffer& c) {
      NCCL(Recv, c.data, count(c), nccl_type(c.dtype), peer, line_->comm, lane());
    });
  }

  std::shared_ptr<Communicator> host_;
  int64_t limit_;  // elements of a message
  std::shared_ptr<Line> line_;
};

}  // namespace

std::string why_no_nccl() {
  try {
    api();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

std::shared_ptr<Communicator> nccl_communicator(std::shared_ptr<Communicator> host, Device device,
                                                const Limits& limits) {
  return std::make_shared<NcclCommunicator>(std::move(host), device, limits);
}

}  // namespace mimo
