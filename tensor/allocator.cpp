#include "tensor/allocator.h"

#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace mimo {
namespace {

constexpr int64_t kAlign = 64;

// Size classes: eight steps an octave, so that at most an eighth is lost.
int64_t size_class(int64_t bytes) {
  if (bytes <= 8 * kAlign) return (bytes + kAlign - 1) / kAlign * kAlign;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
}

struct Pool {
  std::mutex mutex;
  std::unordered_map<int64_t, std::vector<void*>> free;
  std::vector<std::string> labels{"other"};
  std::vector<MemoryStatistics> statistics{{}};
};

Pool& pool() {
  static Pool* p = new Pool;  // never destroyed: storages may outlive main
  return *p;
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
  void* data = nullptr;
  {
    std::lock_guard lock(p.mutex);
    auto& list = p.free[size];
    if (!list.empty()) {
      data = list.back();
      list.pop_back();
    }
    MemoryStatistics& m = p.statistics[s->label];
    m.current += size;
    m.peak = std::max(m.peak, m.current);
  }
  if (!data) data = std::aligned_alloc(kAlign, size);
  if (!data) throw std::bad_alloc();
  s->data = data;
  s->bytes = size;
  return s;
}

Storage::~Storage() {
  if (!data) return;
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.statistics[label].current -= bytes;
  p.free[bytes].push_back(data);
}

MemoryLabel::MemoryLabel(const std::string& name) : before_(current_label) {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  size_t i = 0;
  while (i < p.labels.size() && p.labels[i] != name) ++i;
  if (i == p.labels.size()) {
    p.labels.push_back(name);
    p.statistics.emplace_back();
  }
  current_label = static_cast<int>(i);
}

MemoryLabel::~MemoryLabel() { current_label = before_; }

std::map<std::string, MemoryStatistics> memory_statistics() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  std::map<std::string, MemoryStatistics> out;
  for (size_t i = 0; i < p.labels.size(); ++i) out[p.labels[i]] = p.statistics[i];
  return out;
}

void reset_memory_peaks() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  for (MemoryStatistics& m : p.statistics) m.peak = m.current;
}

void release_cached_memory() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  for (auto& [size, list] : p.free) {
    for (void* d : list) std::free(d);
    list.clear();
  }
}

}  // namespace mimo
