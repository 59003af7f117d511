#include "parallel/agreement.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "parallel/buffers.h"
#include "parallel/watchdog.h"

namespace mimo {
namespace {

// The lines of a text without comments, each with the TOML section that it is in.
std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  std::string section;
  for (std::string line; std::getline(in, line);) {
    line = line.substr(0, line.find("  # "));
    if (line.empty() || line.starts_with("# ")) continue;
    if (line.starts_with('[') && line.ends_with(']'))
      section = line.substr(1, line.size() - 2) + '.';
    else
      lines.push_back(section + line);
  }
  return lines;
}

void check_same(const Fact& fact, int rank, const std::string& expected) {
  if (fact.text == expected) return;
  const std::vector<std::string> mine = lines_of(fact.text), theirs = lines_of(expected);
  size_t i = 0;
  while (i < mine.size() && i < theirs.size() && mine[i] == theirs[i]) ++i;
  const auto line = [&](const std::vector<std::string>& all) { return i < all.size() ? all[i] : "nothing"; };
  throw ConfigError(
      "rank " + std::to_string(rank),
      "another " + fact.name + " than rank 0's: expected " + line(theirs) + ", found " + line(mine),
      fact.hint);
}

}  // namespace

bool agree(Communicator& world, const std::string& error) {
  Watchdog watchdog(world, start_timeout(), nullptr, "MIMO_START_TIMEOUT");
  watchdog.begin("the agreement of all ranks at start");
  const std::vector<std::string> errors = all_gather(world, error);
  const auto first = std::find_if(errors.begin(), errors.end(), [](const auto& e) { return !e.empty(); });
  if (first == errors.end()) return true;
  if (world.rank() == 0) {
    std::fprintf(stderr, "error: %s\n", first->c_str());
    std::fflush(stderr);
  }
  return false;
}

bool agree(Communicator& world, const std::function<void()>& checks) {
  std::string error;
  try {
    checks();
  } catch (const ConfigError& e) {
    error = e.what();
  }
  return agree(world, error);
}

bool agree_on(Communicator& world, const std::vector<Fact>& facts) {
  Watchdog watchdog(world, start_timeout(), nullptr, "MIMO_START_TIMEOUT");
  watchdog.begin("the comparison of all ranks at start");
  std::vector<std::string> expected;
  for (const Fact& fact : facts) expected.push_back(broadcast(world, fact.text, 0));
  return agree(world, [&] {
    for (size_t i = 0; i < facts.size(); ++i) check_same(facts[i], world.rank(), expected[i]);
  });
}

}  // namespace mimo
