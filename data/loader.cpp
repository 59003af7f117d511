#include "data/loader.h"

#include "kernels/cpu/threads.h"

namespace mimo {

SampleOrder::SampleOrder(int64_t samples, uint64_t seed) : samples_(samples), seed_(seed) {
  if (samples < 1) throw ConfigError("data.path", "nothing to train on: expected samples, found none");
}

std::vector<int64_t> SampleOrder::samples(int64_t position, int64_t count) const {
  std::vector<int64_t> out;
  for (int64_t p = position; p < position + count; ++p)
    out.push_back(Permutation(samples_, seed_, static_cast<uint64_t>(p / samples_))(p % samples_));
  return out;
}

Loader::Loader(const Split& split, Packing packing, int workers)
    : split_(split), packing_(std::move(packing)) {
  for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
}

Loader::~Loader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& t : threads_) t.join();
}

PackedBatch Loader::make(const Request& r) const { return pack(split_, packing_, r.samples, r.wants); }

void Loader::submit(Request r) {
  {
    std::lock_guard lock(mutex_);
    queue_.emplace_back(submitted_++, std::move(r));
  }
  changed_.notify_all();
}

PackedBatch Loader::take() {
  std::unique_lock lock(mutex_);
  MIMO_CHECK(taken_ < submitted_, "a batch was taken that nobody asked for");
  const size_t id = taken_++;
  if (threads_.empty()) {
    const Request r = std::move(queue_.front().second);
    queue_.pop_front();
    return make(r);
  }
  changed_.wait(lock, [&] { return done_.count(id) > 0; });
  Done d = std::move(done_.at(id));
  done_.erase(id);
  if (d.error) std::rethrow_exception(d.error);
  return std::move(d.batch);
}

void Loader::work() {
  const Serial alone;  // the ranks' cores belong to compute
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    auto [id, request] = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Done d;
    try {
      d.batch = make(request);
    } catch (...) {
      d.error = std::current_exception();
    }
    lock.lock();
    done_[id] = std::move(d);
    changed_.notify_all();
  }
}

}  // namespace mimo
