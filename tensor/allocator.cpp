#include "tensor/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace mimo {
namespace {

constexpr int64_t kAlign = 64;

// Size classes: eight steps an octave, so that at most an eighth is lost; all are multiples of kAlign.
int64_t size_class(int64_t bytes) {
  if (bytes <= 8 * kAlign) return (bytes + kAlign - 1) / kAlign * kAlign;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
}

void add(MemoryStatistics& m, int64_t bytes) {
  m.current += bytes;
  m.peak = std::max(m.peak, m.current);
}

// The free blocks of the CPU, where memory is free for all as soon as its last handle is gone.
struct Pool {
  std::mutex mutex;
  std::map<int64_t, std::vector<void*>> free;  // by size
  int64_t cached = 0, held = 0;                // bytes free, bytes free or in use
  std::vector<std::string> labels{"other"};
  std::vector<MemoryStatistics> statistics{{}};
  MemoryStatistics total;

  void* take(int64_t size, int64_t& block);
  void release();
};

Pool& pool() {
  static Pool* p = new Pool;  // never destroyed: storages may outlive main
  return *p;
}

void Pool::release() {
  for (auto& [size, list] : free)
    for (void* data : list) std::free(data);
  free.clear();
  held -= cached;
  cached = 0;
}

// A free block of up to one and a half times the size, or a new one. Packed batches differ in length from
// step to step, so the blocks of a long one must serve a short one too; and what many lengths leave behind
// must not pile up: all free blocks go back before more than twice the peak is held.
void* Pool::take(int64_t size, int64_t& block) {
  const auto fit = free.lower_bound(size);
  if (fit != free.end() && fit->first <= size + size / 2) {
    void* data = fit->second.back();
    block = fit->first;
    cached -= block;
    fit->second.pop_back();
    if (fit->second.empty()) free.erase(fit);
    return data;
  }
  block = size;
  const int64_t peak = std::max(total.peak, total.current + size);
  if (held + size - peak > peak) release();
  void* data = std::aligned_alloc(kAlign, size);
  if (!data) {
    release();
    data = std::aligned_alloc(kAlign, size);
  }
  if (data) held += size;
  return data;
}

thread_local int current_label = 0;

}  // namespace

std::shared_ptr<Storage> allocate(int64_t bytes, Device device) {
  if (device.kind != Device::Kind::cpu) throw std::runtime_error("built without CUDA: no device memory");
  auto s = std::make_shared<Storage>();
  s->device = device;
  s->label = current_label;
  if (bytes == 0) return s;
  const int64_t size = size_class(bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  s->data = p.take(size, s->block);
  if (!s->data) {
    std::string message =
        "out of memory: " + std::to_string(bytes) + " bytes for " + p.labels[s->label] + "; in use:";
    for (size_t i = 0; i < p.labels.size(); ++i)
      message += " " + p.labels[i] + " " + std::to_string(p.statistics[i].current);
    throw std::runtime_error(message);
  }
  s->bytes = size;
  add(p.statistics[s->label], size);
  add(p.total, size);
  return s;
}

Storage::~Storage() {
  if (!data) return;
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  add(p.statistics[label], -bytes);
  add(p.total, -bytes);
  p.free[block].push_back(data);
  p.cached += block;
}

MemoryLabel::MemoryLabel(const std::string& name) : before_(current_label) {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  const auto at = std::find(p.labels.begin(), p.labels.end(), name);
  current_label = static_cast<int>(at - p.labels.begin());
  if (at == p.labels.end()) {
    p.labels.push_back(name);
    p.statistics.emplace_back();
  }
}

MemoryLabel::~MemoryLabel() { current_label = before_; }

int memory_label() { return current_label; }

std::string memory_label_name(int label) {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.labels.at(static_cast<size_t>(label));
}

std::map<std::string, MemoryStatistics> memory_statistics() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  std::map<std::string, MemoryStatistics> out;
  for (size_t i = 0; i < p.labels.size(); ++i) out[p.labels[i]] = p.statistics[i];
  return out;
}

MemoryStatistics memory_total() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.total;
}

int64_t cached_memory() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.cached;
}

void reset_memory_peaks() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  for (MemoryStatistics& m : p.statistics) m.peak = m.current;
  p.total.peak = p.total.current;
}

void release_cached_memory() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.release();
}

}  // namespace mimo
