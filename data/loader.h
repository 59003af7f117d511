// Which samples a step takes, and batches of them (data/pack.h), prepared ahead by threads.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "data/pack.h"
#include "data/random.h"
#include "parallel/batch.h"

namespace mimo {

// Global position p is sample perm_e(p mod n) of epoch e = p / n: epochs follow each other without a gap, so
// no sample is dropped, and the order depends on (seed, position) only.
class SampleOrder {
 public:
  SampleOrder(int64_t samples, uint64_t seed);  // throws ConfigError where there are none
  std::vector<int64_t> samples(int64_t position, int64_t count) const;

 private:
  int64_t samples_;
  uint64_t seed_;
};

// Prepares requested batches in threads; results come in the order of the requests, whatever the number of
// threads.
class Loader {
 public:
  struct Request {
    std::vector<int64_t> samples;
    std::vector<bool> wants;  // by modality: see pack
  };
  // The split must outlive the loader. workers = 0 packs in take() itself.
  Loader(const Split&, Packing, int workers);
  ~Loader();
  Loader(const Loader&) = delete;

  void submit(Request);
  PackedBatch
  take();  // the oldest request not yet taken; rethrows what went wrong with it, and goes on after
  size_t pending() const { return submitted_ - taken_; }

 private:
  struct Done {
    PackedBatch batch;
    std::exception_ptr error;
  };
  PackedBatch make(const Request&) const;
  void work();

  const Split& split_;
  Packing packing_;
  size_t submitted_ = 0, taken_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<size_t, Request>> queue_;
  std::map<size_t, Done> done_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mimo
