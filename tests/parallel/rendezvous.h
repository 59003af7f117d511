// Ranks as threads, with exchanges that buffer nothing: data moves only when both sides have posted.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "parallel/communicator.h"

namespace mimo::testing {

class Rendezvous {
 public:
  explicit Rendezvous(int size) : size_(size) {}

  class Endpoint : public Communicator {
   public:
    Endpoint(Rendezvous& meeting, int rank) : meeting_(meeting), rank_(rank) {
      for (int r = 0; r < meeting.size_; ++r) ranks_.push_back(r);
    }
    int rank() const override { return rank_; }
    int size() const override { return meeting_.size_; }
    const Ranks& ranks() const override { return ranks_; }
    Work exchange(std::span<const P2P> messages, Stream&) override { return meeting_.post(rank_, messages); }
    Work all_reduce(Buffer, ReduceOp, Stream&) override { none(); }
    Work all_gather(Buffer, Buffer, std::span<const int64_t>, Stream&) override { none(); }
    Work reduce_scatter(Buffer, Buffer, std::span<const int64_t>, Stream&) override { none(); }
    Work broadcast(Buffer, int, Stream&) override { none(); }
    Work all_to_all(Buffer, std::span<const int64_t>, Buffer, std::span<const int64_t>, Stream&) override {
      none();
    }
    void barrier() override { none(); }
    [[noreturn]] void abort(std::string_view why) override { throw std::runtime_error(std::string(why)); }

   private:
    [[noreturn]] static void none() { throw std::logic_error("transfers only exchange"); }
    Rendezvous& meeting_;
    int rank_;
    Ranks ranks_;
  };

  int64_t messages() const { return count_; }
  bool idle() const {
    for (const auto& [pair, queue] : waiting_)
      if (!queue.empty()) return false;
    return true;
  }

 private:
  struct Message {
    P2P p2p;
    std::shared_ptr<int> left;  // of the exchange it belongs to
  };

  Work post(int rank, std::span<const P2P> messages) {
    std::lock_guard lock(mutex_);
    auto left = std::make_shared<int>(static_cast<int>(messages.size()));
    for (const P2P& m : messages) {
      if (m.buffer.count == 0) throw std::logic_error("an empty message");
      if (m.peer == rank) throw std::logic_error("a message to oneself");
      const std::pair<int, int> pair = m.send ? std::pair(rank, m.peer) : std::pair(m.peer, rank);
      auto& queue = waiting_[pair];
      if (queue.empty() || queue.front().p2p.send == m.send) {
        queue.push_back({m, left});
        continue;
      }
      const Message other = queue.front();
      queue.pop_front();
      const Buffer &src = m.send ? m.buffer : other.p2p.buffer, &dst = m.send ? other.p2p.buffer : m.buffer;
      if (src.count != dst.count || src.dtype != dst.dtype)
        throw std::logic_error("sent " + std::to_string(src.count) + " elements, expected " +
                               std::to_string(dst.count));
      std::memcpy(dst.data, src.data, src.count * size_of(src.dtype));
      --*left;
      --*other.left;
      ++count_;
    }
    changed_.notify_all();
    return Work([this, left](bool block) {
      std::unique_lock own(mutex_);
      if (block && !changed_.wait_for(own, std::chrono::seconds(5), [&] { return *left == 0; }))
        throw std::runtime_error("deadlock: nothing came for 5 s");
      return *left == 0;
    });
  }

  int size_;
  int64_t count_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, int>, std::deque<Message>> waiting_;  // (sender, receiver), all of one side
};

// Runs f(rank) on as many threads; rethrows the first error.
inline void run_ranks(int size, const std::function<void(int)>& f) {
  std::vector<std::exception_ptr> errors(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      try {
        f(r);
      } catch (...) {
        errors[r] = std::current_exception();
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors)
    if (e) std::rethrow_exception(e);
}

}  // namespace mimo::testing
