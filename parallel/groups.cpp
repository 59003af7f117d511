#include "parallel/groups.h"

#include <algorithm>
#include <set>

#include "tensor/error.h"

namespace mimo {

const char* name_of(Purpose purpose) {
  constexpr const char* names[] = {"layers", "gradients", "transfers_forward", "transfers_backward"};
  return names[static_cast<int>(purpose)];
}

Groups::Groups(World& world, const std::vector<Group>& groups) {
  const int me = world.world().ranks()[world.world().rank()];
  for (const Group& g : std::set<Group>(groups.begin(), groups.end()))
    if (std::find(g.ranks.begin(), g.ranks.end(), me) != g.ranks.end()) made_[g] = world.create(g.ranks);
}

Communicator& Groups::at(Purpose purpose, const Ranks& ranks) const {
  const auto found = made_.find({purpose, ranks});
  MIMO_CHECK(found != made_.end(), "no communicator of " + to_string(ranks) + " for " + name_of(purpose));
  return *found->second;
}

}  // namespace mimo
