// Device memory through the host: a copy to pinned memory, the host communicator's operation, a copy back.
// The host waits for the first copy and for the operation, never for the copy back.
#include <exception>

#include "parallel/buffers.h"
#include "parallel/transports.h"
#include "tensor/cuda.h"
#include "tensor/pinned.h"

namespace mimo {
namespace {

// A host buffer for what a device buffer holds.
struct Staged {
  std::shared_ptr<PinnedBlock> block;
  Buffer host;

  Staged(DType dtype, int64_t count) : block(pinned_block(count * size_of(dtype))) {
    host = Buffer(block->data(), count, dtype, Device{}, block);
  }
  explicit Staged(const Buffer& device) : Staged(device.dtype, device.count) {}

  void store(const Buffer& from, const Buffer& to, Stream& stream) const {
    copy(from, to, stream);
    block->in_use(stream);
  }
  void store(const Buffer& to, Stream& stream) const { store(host, to, stream); }
};

// Messages in flight, and where on the device the received ones go.
struct Exchange {
  struct Arrival {
    Staged from;
    Buffer to;
  };
  Work work;
  Stream stream;
  std::vector<Arrival> arrivals;

  bool finish(bool block) {
    if (block)
      work.wait();
    else if (!work.test())
      return false;
    for (const Arrival& a : arrivals) a.from.store(a.to, stream);
    arrivals.clear();
    return true;
  }
  ~Exchange() {
    if (std::uncaught_exceptions() > 0 || arrivals.empty()) return;  // a failing rank does not wait
    try {
      finish(true);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "error: an exchange that nobody waited for: %s\n", e.what());
    }
  }
};

class StagedCommunicator : public Communicator {
 public:
  explicit StagedCommunicator(std::shared_ptr<Communicator> host) : host_(std::move(host)) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const Ranks& ranks() const override { return host_->ranks(); }

  Work all_reduce(Buffer x, ReduceOp op, Stream& stream) override {
    if (!on_device(x) || x.count == 0) return host_->all_reduce(host_side(x), op, stream);
    const Staged s(x);
    fetch(x, s.host, stream);
    host_->all_reduce(s.host, op, stream).wait();
    s.store(x, stream);
    return {};
  }

  Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    if (!on_device(in) && !on_device(out)) return host_->all_gather(in, out, counts, stream);
    const auto begin = begins(counts, out, size());
    MIMO_CHECK(in.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    const Staged s(out);
    const Buffer mine = part(s.host, begin[rank()], in.count);
    fetch(in, mine, stream);
    host_->all_gather(mine, s.host, counts, stream).wait();
    s.store(out, stream);
    return {};
  }

  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts, Stream& stream) override {
    if (!on_device(in) && !on_device(out)) return host_->reduce_scatter(in, out, counts, stream);
    const auto begin = begins(counts, in, size());
    MIMO_CHECK(out.count == counts[rank()] && in.dtype == out.dtype, "sizes of the two buffers differ");
    const Staged s(in);
    const Buffer mine = part(s.host, begin[rank()], out.count);
    fetch(in, s.host, stream);
    host_->reduce_scatter(s.host, mine, counts, stream).wait();
    s.store(mine, out, stream);
    return {};
  }

  Work broadcast(Buffer x, int root, Stream& stream) override {
    if (!on_device(x) || x.count == 0) return host_->broadcast(host_side(x), root, stream);
    const Staged s(x);
    if (root == rank()) fetch(x, s.host, stream);
    host_->broadcast(s.host, root, stream).wait();
    if (root != rank()) s.store(x, stream);
    return {};
  }

  Work all_to_all(Buffer in, std::span<const int64_t> send, Buffer out, std::span<const int64_t> receive,
                  Stream& stream) override {
    if (!on_device(in) && !on_device(out)) return host_->all_to_all(in, send, out, receive, stream);
    const Staged from(in), to(out);
    fetch(in, from.host, stream);
    host_->all_to_all(from.host, send, to.host, receive, stream).wait();
    to.store(out, stream);
    return {};
  }

  Work exchange(std::span<const P2P> list, Stream& stream) override {
    const auto exchange = std::make_shared<Exchange>();
    std::vector<P2P> messages;
    bool fetching = false;
    for (const P2P& m : list) {
      if (!on_device(m.buffer) || m.buffer.count == 0) {
        messages.push_back({m.send, m.peer, host_side(m.buffer)});
        continue;
      }
      const Staged s(m.buffer);
      messages.push_back({m.send, m.peer, s.host});
      if (!m.send) {
        exchange->arrivals.push_back({s, m.buffer});
        continue;
      }
      copy(m.buffer, s.host, stream);
      fetching = true;
    }
    if (fetching) cuda::synchronize(cuda_stream(stream));
    exchange->stream = stream;
    exchange->work = host_->exchange(messages, stream);
    return Work([exchange](bool block) { return exchange->finish(block); });
  }

  void barrier() override { host_->barrier(); }
  std::string failure() override { return host_->failure(); }
  void abort(std::string_view why) override { host_->abort(why); }

 private:
  static Buffer host_side(Buffer b) {  // of host memory or nothing
    b.device = Device{};
    return b;
  }
  static void fetch(const Buffer& from, const Buffer& to, Stream& stream) {
    if (from.count == 0) return;
    copy(from, to, stream);
    cuda::synchronize(cuda_stream(stream));
  }

  std::shared_ptr<Communicator> host_;
};

}  // namespace

std::shared_ptr<Communicator> staged_communicator(std::shared_ptr<Communicator> host) {
  return std::make_shared<StagedCommunicator>(std::move(host));
}

}  // namespace mimo
