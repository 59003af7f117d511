#include "parallel/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "kernels/cpu/threads.h"
#include "parallel/launcher.h"
#include "tensor/error.h"
#include "tensor/text.h"

namespace mimo {
namespace {

// A CPU set of any size.
class CpuSet {
 public:
  explicit CpuSet(int cpus) : cpus_(cpus), bits_(CPU_ALLOC_SIZE(cpus) / sizeof(unsigned long)) {}
  cpu_set_t* get() { return reinterpret_cast<cpu_set_t*>(bits_.data()); }
  size_t bytes() const { return bits_.size() * sizeof(unsigned long); }
  void add(int cpu) { CPU_SET_S(cpu, bytes(), get()); }
  std::vector<int> list() {
    std::vector<int> out;
    for (int c = 0; c < cpus_; ++c)
      if (CPU_ISSET_S(c, bytes(), get())) out.push_back(c);
    return out;
  }

 private:
  int cpus_;
  std::vector<unsigned long> bits_;
};

int configured_cpus() { return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_CONF))); }

std::vector<int> affinity_mask() {
  CpuSet set(configured_cpus());
  return sched_getaffinity(0, set.bytes(), set.get()) == 0 ? set.list() : std::vector<int>{0};
}

// CPUs' worth of time that the container's quota grants; infinite without one.
double quota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string most;
  double period = 0;
  if (v2 >> most >> period && most != "max" && period > 0) return std::atof(most.c_str()) / period;
  std::ifstream v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double granted = -1;
  if (v1 >> granted && v1_period >> period && granted > 0) return granted / period;
  return INFINITY;
}

}  // namespace

std::vector<int> available_cores() {
  if (!launcher()) return affinity_mask();
  // The kernel cuts a mask down to the container's cpuset: ask for all, see what is granted, put it back.
  CpuSet before(configured_cpus()), granted(configured_cpus());
  if (sched_getaffinity(0, before.bytes(), before.get()) != 0) return {0};
  CpuSet all(configured_cpus());
  for (int c = 0; c < configured_cpus(); ++c) all.add(c);
  const bool asked = sched_setaffinity(0, all.bytes(), all.get()) == 0;
  if (!asked || sched_getaffinity(0, granted.bytes(), granted.get()) != 0) granted = before;
  if (asked) sched_setaffinity(0, before.bytes(), before.get());
  return granted.list();
}

int usable_cores() {
  return static_cast<int>(std::min(static_cast<double>(available_cores().size()), std::ceil(quota())));
}

CoreShare core_share(const std::vector<int>& cores, int usable, int node_rank, int node_size) {
  MIMO_CHECK(!cores.empty() && usable >= 1 && node_rank >= 0 && node_rank < node_size,
             "no core or no such rank");
  const int c = static_cast<int>(cores.size());
  CoreShare share;
  share.cores = cores;
  if (node_size < c && usable == c)
    share.cores.assign(cores.begin() + int64_t{node_rank} * c / node_size,
                       cores.begin() + (int64_t{node_rank} + 1) * c / node_size);
  share.threads = std::max(1, usable / node_size);
  return share;
}

CoreShare share_cores(int node_rank, int node_size) {
  const std::vector<int> cores = available_cores();
  const int usable = usable_cores();
  CoreShare share = core_share(cores, usable, node_rank, node_size);
  const char* set_by = "";
  if (!launcher() && std::getenv("OMP_NUM_THREADS"))
    share.threads = default_thread_count(), set_by = " (OMP_NUM_THREADS)";
  if (const char* given = std::getenv("MIMO_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(given, &end, 10);
    if (end == given || *end != 0 || n < 1 || n > 4096)
      throw ConfigError("MIMO_THREADS",
                        std::string("expected a number of threads from 1 to 4096, found \"") + given + "\"");
    share.threads = static_cast<int>(n), set_by = " (MIMO_THREADS)";
  }
  CpuSet set(configured_cpus());
  for (int c : share.cores) set.add(c);
  const bool bound = sched_setaffinity(0, set.bytes(), set.get()) == 0;
  set_thread_count(share.threads);
  share.description = counted(node_size, "rank") + " on " + counted(usable, "core") + ", " +
                      counted(share.threads, "thread") + " a rank" + set_by + ", rank " +
                      std::to_string(node_rank) + " on core" + (share.cores.size() == 1 ? " " : "s ") +
                      ranges(share.cores);
  if (!bound) share.description += std::string(" (not bound: ") + std::strerror(errno) + ")";
  return share;
}

}  // namespace mimo
