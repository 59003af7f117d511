// Ranks as threads of one process: the collectives that checkpoints use.
#pragma once
#include <algorithm>
#include <barrier>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "parallel/communicator.h"

namespace mimo {

class ThreadRanks {
 public:
  // Runs body(communicator) on n ranks; returns what each threw (null: nothing). `before` is called before
  // every collective with the rank and how many it has done.
  using Before = std::function<void(int rank, int done)>;
  static std::vector<std::exception_ptr> run(int n, const std::function<void(Communicator&)>& body,
                                             const Before& before = {}) {
    ThreadRanks shared(n);
    std::vector<std::exception_ptr> errors(static_cast<size_t>(n));
    std::vector<std::jthread> threads;
    for (int r = 0; r < n; ++r)
      threads.emplace_back([&, r] {
        Member member(shared, r, before);
        try {
          body(member);
        } catch (...) {
          errors[static_cast<size_t>(r)] = std::current_exception();
        }
      });
    threads.clear();
    return errors;
  }

 private:
  explicit ThreadRanks(int n) : barrier_(n), in_(static_cast<size_t>(n)), world_(static_cast<size_t>(n)) {
    std::iota(world_.begin(), world_.end(), 0);
  }

  class Member : public Communicator {
   public:
    Member(ThreadRanks& shared, int rank, const Before& before)
        : shared_(shared), rank_(rank), before_(before) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(shared_.in_.size()); }
    const Ranks& ranks() const override { return shared_.world_; }
    void barrier() override {
      if (before_) before_(rank_, done_);
      ++done_;
      shared_.barrier_.arrive_and_wait();
    }
    Work all_gather(Buffer in, Buffer out, std::span<const int64_t>, Stream&) override {
      meet(in, [&] {
        char* to = static_cast<char*>(out.data);
        for (const Buffer& b : shared_.in_) {
          std::copy_n(static_cast<const char*>(b.data), b.count * size_of(b.dtype), to);
          to += b.count * size_of(b.dtype);
        }
      });
      return {};
    }
    Work all_reduce(Buffer inout, ReduceOp op, Stream&) override {
      MIMO_CHECK(op == ReduceOp::max && inout.dtype == DType::i32, "not among these ranks' collectives");
      std::vector<int32_t> most(static_cast<size_t>(inout.count), INT32_MIN);
      meet(inout, [&] {
        for (const Buffer& b : shared_.in_)
          for (size_t i = 0; i < most.size(); ++i)
            most[i] = std::max(most[i], static_cast<const int32_t*>(b.data)[i]);
      });
      std::copy(most.begin(), most.end(), static_cast<int32_t*>(inout.data));
      return {};
    }
    Work reduce_scatter(Buffer, Buffer, std::span<const int64_t>, Stream&) override { return none(); }
    Work broadcast(Buffer, int, Stream&) override { return none(); }
    Work all_to_all(Buffer, std::span<const int64_t>, Buffer, std::span<const int64_t>, Stream&) override {
      return none();
    }
    Work exchange(std::span<const P2P>, Stream&) override { return none(); }
    void abort(std::string_view) override { std::terminate(); }

   private:
    void meet(const Buffer& mine, const std::function<void()>& read) {
      shared_.in_[static_cast<size_t>(rank_)] = mine;
      barrier();
      read();
      shared_.barrier_.arrive_and_wait();
    }
    static Work none() { throw std::logic_error("not among these ranks' collectives"); }

    ThreadRanks& shared_;
    int rank_, done_ = 0;
    const Before& before_;
  };

  std::barrier<> barrier_;
  std::vector<Buffer> in_;
  Ranks world_;
};

}  // namespace mimo
