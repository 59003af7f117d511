// Chooses how the memory of devices travels, group by group, from where all ranks are.
#include "parallel/device_world.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>

#include "parallel/buffers.h"
#include "tensor/cuda.h"

namespace mimo {
namespace {

bool sharing_wanted() {
  const char* value = std::getenv("MIMO_NCCL_SHARE_GPU");
  return value && std::string(value) == "1";
}

// Host names repeat, in containers say; the boot id tells machines apart.
std::string machine_id(const std::string& name) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  return std::getline(file, id) && !id.empty() ? id : name;
}

RankPlace this_place(Device device) {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return {machine_id(name), name, cuda::device_info(device.index).pci, device.index, why_no_nccl()};
}

// A rank's place as one line of text.
std::vector<RankPlace> gather(Communicator& world, const RankPlace& mine) {
  std::string text = mine.machine + '\0' + mine.host + '\0' + mine.pci + '\0' + std::to_string(mine.device) +
                     '\0' + mine.why_no_nccl + '\0';
  std::vector<RankPlace> places;
  for (const std::string& line : all_gather(world, text)) {
    RankPlace& p = places.emplace_back();
    std::string device;
    size_t at = 0;
    for (std::string* field : {&p.machine, &p.host, &p.pci, &device, &p.why_no_nccl}) {
      *field = line.c_str() + at;
      at += field->size() + 1;
    }
    p.device = std::stoi(device);
  }
  return places;
}

// NCCL reads its environment once, at its first call.
void pretend_machines(int rank) {
  setenv("NCCL_HOSTID", ("mimo-rank-" + std::to_string(rank)).c_str(), 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  for (const char* name : {"NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE"}) setenv(name, "1", 1);
}

class DeviceWorld : public World {
 public:
  DeviceWorld(World& host, Device device) : host_(host), device_(device) {
    if (sharing_wanted()) pretend_machines(host_.world().rank());
    places_ = gather(host_.world(), this_place(device));
    // Not owned: host's.
    world_ = add(host_.world().ranks(), {std::shared_ptr<Communicator>(), &host_.world()}, {});
  }

  // Each made on all its ranks in an order that all share, and destroyed in that order: NCCL makes ranks of a
  // machine meet there.
  ~DeviceWorld() override {
    world_.reset();
    for (auto& c : made_) c.reset();
  }

  Communicator& world() override { return *world_; }
  std::shared_ptr<Communicator> create(const Ranks& ranks, const Limits& limits) override {
    std::shared_ptr<Communicator> host = host_.create(ranks, limits);
    return host ? add(ranks, std::move(host), limits) : nullptr;
  }
  int node_rank() const override { return host_.node_rank(); }
  int node_size() const override { return host_.node_size(); }

  std::string failure() override {
    std::vector<std::shared_ptr<Communicator>> made;
    {
      std::lock_guard lock(mutex_);
      made = made_;
    }
    for (const auto& c : made)
      if (std::string f = c->failure(); !f.empty()) return f;
    return host_.failure();
  }
  std::string transport() override { return describe_transport(places_, sharing_wanted()); }

 private:
  std::shared_ptr<Communicator> add(const Ranks& ranks, std::shared_ptr<Communicator> host,
                                    const Limits& limits) {
    if (ranks.size() == 1) return host;  // copies on the device
    std::vector<RankPlace> places;
    for (int r : ranks) places.push_back(places_.at(static_cast<size_t>(r)));
    auto made = uses_nccl(places, sharing_wanted()) ? nccl_communicator(std::move(host), device_, limits)
                                                    : staged_communicator(std::move(host));
    std::lock_guard lock(mutex_);
    made_.push_back(made);
    return made;
  }

  World& host_;
  Device device_;
  std::vector<RankPlace> places_;  // by world rank
  std::mutex mutex_;               // of the list: the watchdog reads it
  std::vector<std::shared_ptr<Communicator>> made_;
  std::shared_ptr<Communicator> world_;
};

// Ranks by GPU.
std::map<std::pair<std::string, std::string>, std::vector<int>> by_gpu(std::span<const RankPlace> places) {
  std::map<std::pair<std::string, std::string>, std::vector<int>> gpus;
  for (size_t r = 0; r < places.size(); ++r)
    gpus[{places[r].machine, places[r].pci}].push_back(static_cast<int>(r));
  return gpus;
}

}  // namespace

bool uses_nccl(std::span<const RankPlace> places, bool share) {
  return std::all_of(places.begin(), places.end(),
                     [](const RankPlace& p) { return p.why_no_nccl.empty(); }) &&
         (share || by_gpu(places).size() == places.size());
}

std::string describe_transport(std::span<const RankPlace> places, bool share) {
  if (places.size() == 1) return "one rank, no messages";
  const std::string ranks = std::to_string(places.size()) + " ranks";
  std::vector<int> without;
  for (size_t r = 0; r < places.size(); ++r)
    if (!places[r].why_no_nccl.empty()) without.push_back(static_cast<int>(r));
  if (!without.empty())
    return ranks + ": staged through host memory" +
           (without.size() < places.size() ? " in groups with " + to_string(without) + ", without NCCL"
                                           : "") +
           " (" + places[static_cast<size_t>(without[0])].why_no_nccl + ")";
  const auto gpus = by_gpu(places);
  if (gpus.size() == places.size()) return ranks + ", each with its own GPU: NCCL";
  std::string s;
  for (const auto& [gpu, sharers] : gpus) {
    if (sharers.size() == 1) continue;
    const RankPlace& p = places[static_cast<size_t>(sharers[0])];
    s += (s.empty() ? "" : "; ") + to_string(sharers) + " share GPU " + std::to_string(p.device) + " of " +
         p.host;
  }
  if (share) return s + ": NCCL over loopback sockets, for tests (MIMO_NCCL_SHARE_GPU)";
  return s + ": staged through host memory" + (gpus.size() > 1 ? "; NCCL in groups with a GPU each" : "");
}

std::unique_ptr<World> device_world(World& host, Device device) {
  return std::make_unique<DeviceWorld>(host, device);
}

}  // namespace mimo
