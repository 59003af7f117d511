#include "tensor/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "tensor/cuda.h"

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

// The free blocks of one stream of one device.
struct Pool {
  Device device;
  std::map<int64_t, std::vector<void*>> free;  // by size
  int64_t cached = 0, held = 0, peak = 0;      // bytes free, bytes free or in use, most bytes in use

  void* take(int64_t size, int64_t& block);
  void release();

 private:
  void* reserve(int64_t size) {
    return device.kind == Device::Kind::cpu ? std::aligned_alloc(kAlign, size)
                                            : cuda::allocate_device(size, device.index);
  }
};

struct Memory {
  std::mutex mutex;
  std::map<std::tuple<Device::Kind, int, void*>, Pool> pools;
  std::vector<std::string> labels{"other"};
  std::vector<MemoryStatistics> statistics{{}};
  MemoryStatistics total;

  Pool& pool(Device device, void* stream) {
    Pool& p = pools[{device.kind, device.index, stream}];
    p.device = device;
    return p;
  }
};

Memory& memory() {
  static Memory* m = new Memory;  // never destroyed: storages may outlive main
  return *m;
}

void Pool::release() {
  for (auto& [size, list] : free)
    for (void* data : list) {
      if (device.kind == Device::Kind::cpu)
        std::free(data);
      else
        cuda::free_device(data, device.index);
    }
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
    peak = std::max(peak, held - cached);
    return data;
  }
  block = size;
  const int64_t most = std::max(peak, held - cached + size);
  if (held + size - most > most) release();
  void* data = reserve(size);
  if (!data) {
    for (auto& [key, other] : memory().pools)
      if (other.device == device) other.release();
    data = reserve(size);
  }
  if (data) {
    held += size;
    peak = std::max(peak, held - cached);
  }
  return data;
}

thread_local int current_label = 0;

}  // namespace

std::shared_ptr<Storage> allocate(int64_t bytes, Device device) {
  auto s = std::make_shared<Storage>();
  s->device = device;
  s->label = current_label;
  if (device == current_stream().device) s->stream = current_stream().handle();
  if (bytes == 0) return s;
  const int64_t size = size_class(bytes);
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  s->data = m.pool(device, s->stream).take(size, s->block);
  if (!s->data) {
    std::string message =
        "out of memory: " + std::to_string(bytes) + " bytes for " + m.labels[s->label] + "; in use:";
    for (size_t i = 0; i < m.labels.size(); ++i)
      message += " " + m.labels[i] + " " + std::to_string(m.statistics[i].current);
    throw std::runtime_error(message);
  }
  s->bytes = size;
  add(m.statistics[s->label], size);
  add(m.total, size);
  return s;
}

Storage::~Storage() {
  if (!data) return;
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  add(m.statistics[label], -bytes);
  add(m.total, -bytes);
  Pool& p = m.pool(device, stream);
  p.free[block].push_back(data);
  p.cached += block;
}

MemoryLabel::MemoryLabel(const std::string& name) : before_(current_label) {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  const auto at = std::find(m.labels.begin(), m.labels.end(), name);
  current_label = static_cast<int>(at - m.labels.begin());
  if (at == m.labels.end()) {
    m.labels.push_back(name);
    m.statistics.emplace_back();
  }
}

MemoryLabel::~MemoryLabel() { current_label = before_; }

int memory_label() { return current_label; }

std::string memory_label_name(int label) {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  return m.labels.at(static_cast<size_t>(label));
}

std::map<std::string, MemoryStatistics> memory_statistics() {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  std::map<std::string, MemoryStatistics> out;
  for (size_t i = 0; i < m.labels.size(); ++i) out[m.labels[i]] = m.statistics[i];
  return out;
}

MemoryStatistics memory_total() {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  return m.total;
}

int64_t cached_memory() {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  int64_t bytes = 0;
  for (const auto& [key, pool] : m.pools) bytes += pool.cached;
  return bytes;
}

void reset_memory_peaks() {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  for (MemoryStatistics& s : m.statistics) s.peak = s.current;
  m.total.peak = m.total.current;
  for (auto& [key, pool] : m.pools) pool.peak = pool.held - pool.cached;
}

}  // namespace mimo
