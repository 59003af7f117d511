#include <cstring>
#include <deque>
#include <iostream>

#include "parallel/communicator.h"

namespace mimo {

Buffer::Buffer(const Tensor& t) : data(t.raw()), count(t.numel()), dtype(t.dtype()) {
  MIMO_CHECK(t.contiguous(), "a message of a column slice " + to_string(t.shape()));
}

namespace {

void copy(Buffer in, Buffer out) {
  MIMO_CHECK(in.count == out.count && in.dtype == out.dtype, "sizes of the two buffers differ");
  if (in.count > 0 && in.data != out.data) std::memcpy(out.data, in.data, in.count * size_of(in.dtype));
}

class SelfCommunicator : public Communicator {
 public:
  explicit SelfCommunicator(int world_rank) : ranks_{world_rank} {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const Ranks& ranks() const override { return ranks_; }
  Work all_reduce(Buffer, ReduceOp, Stream&) override { return {}; }
  Work all_gather(Buffer in, Buffer out, std::span<const int64_t>, Stream&) override {
    copy(in, out);
    return {};
  }
  Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t>, Stream&) override {
    copy(in, out);
    return {};
  }
  Work broadcast(Buffer, int, Stream&) override { return {}; }
  Work all_to_all(Buffer in, std::span<const int64_t>, Buffer out, std::span<const int64_t>,
                  Stream&) override {
    copy(in, out);
    return {};
  }

  Work exchange(std::span<const P2P> messages, Stream&) override {
    std::vector<std::shared_ptr<Half>> mine;
    for (const P2P& m : messages) {
      MIMO_CHECK(m.peer == 0, "peer " + std::to_string(m.peer) + " of a communicator of one rank");
      if (m.tensor.numel() == 0) continue;
      mine.push_back(std::make_shared<Half>(Half{m.tensor, false}));
      (m.send ? sends_ : receives_).push_back(mine.back());
    }
    for (; !sends_.empty() && !receives_.empty(); sends_.pop_front(), receives_.pop_front()) {
      copy(sends_.front()->tensor, receives_.front()->tensor);
      sends_.front()->done = receives_.front()->done = true;
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
    std::cerr << "error: " << why << std::endl;
    std::_Exit(1);
  }

 private:
  struct Half {
    Tensor tensor;
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

 private:
  std::shared_ptr<Communicator> self_ = self_communicator();
};

}  // namespace

std::shared_ptr<Communicator> self_communicator(int world_rank) {
  return std::make_shared<SelfCommunicator>(world_rank);
}

std::unique_ptr<World> self_world() { return std::make_unique<SelfWorld>(); }

}  // namespace mimo
