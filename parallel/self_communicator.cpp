#include <deque>
#include <iostream>

#include "parallel/buffers.h"
#include "parallel/world.h"

namespace mimo {
namespace {

class SelfCommunicator : public Communicator {
 public:
  explicit SelfCommunicator(int world_rank) : ranks_{world_rank} {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const Ranks& ranks() const override { return ranks_; }
  Work all_reduce(Buffer, ReduceOp, Stream&) override { return {}; }
  Work all_gather(Buffer in, Buffer out, std::span<const int64_t>, Stream& stream) override {
    copy(in, out, stream);
    return {};
  }
  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t>, Stream& stream) override {
    copy(in, out, stream);
    return {};
  }
  Work broadcast(Buffer, int, Stream&) override { return {}; }
  Work all_to_all(Buffer in, std::span<const int64_t>, Buffer out, std::span<const int64_t>,
                  Stream& stream) override {
    copy(in, out, stream);
    return {};
  }

  Work exchange(std::span<const P2P> messages, Stream& stream) override {
    std::vector<std::shared_ptr<Half>> mine;
    for (const P2P& m : messages) {
      MIMO_CHECK(m.peer == 0, "peer " + std::to_string(m.peer) + " of a communicator of one rank");
      if (m.buffer.count == 0) continue;
      mine.push_back(
          std::make_shared<Half>(Half{m.buffer, on_device(m.buffer) ? cuda_stream(stream) : nullptr, false}));
      (m.send ? sends_ : receives_).push_back(mine.back());
    }
    for (; !sends_.empty() && !receives_.empty(); sends_.pop_front(), receives_.pop_front()) {
      Half &from = *sends_.front(), &to = *receives_.front();
      MIMO_CHECK(from.stream == to.stream, "the ends of a message to itself are on one device and stream");
      copy(from.buffer, to.buffer, stream);
      from.done = to.done = true;
    }
    return Work([mine](bool block) {
      for (const auto& half : mine) {
        MIMO_CHECK(!block || half->done, "a message to itself whose other end was never posted");
        if (!half->done) return false;
      }
      return true;
    });
  }

  void barrier() override {}
  void abort(std::string_view why) override {
    if (!why.empty()) std::cerr << "error: " << why << std::endl;
    std::_Exit(1);
  }

 private:
  struct Half {
    Buffer buffer;
    void* stream;  // null on the host
    bool done;
  };
  Ranks ranks_;
  std::deque<std::shared_ptr<Half>> sends_, receives_;  // posted, their other ends not yet
};

class SelfWorld : public World {
 public:
  Communicator& world() override { return *self_; }
  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits&) override {
    return ranks == Ranks{0} ? self_communicator() : nullptr;
  }
  int node_rank() const override { return 0; }
  int node_size() const override { return 1; }
  std::string transport() override { return "one rank, no messages"; }

 private:
  std::shared_ptr<Communicator> self_ = self_communicator();
};

}  // namespace

std::shared_ptr<Communicator> self_communicator(int world_rank) {
  return std::make_shared<SelfCommunicator>(world_rank);
}

std::unique_ptr<World> self_world() { return std::make_unique<SelfWorld>(); }

}  // namespace mimo
