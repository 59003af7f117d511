// The commands of ./mimo. Each returns the exit status.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "parallel/world.h"

namespace mimo {

inline constexpr int kMostRanks = 4096;  // that a plan is drawn for

struct CommandLine {
  std::string config;                  // --config; empty: not named
  std::vector<std::string> overrides;  // --section.key=value
  std::string image;                   // generate
  std::optional<std::string> prompt;   // generate; none: the dataset's
  bool profile = false;                // train: say where the time went
  int64_t greedy = 0;                  // eval: samples also read token by token
  int ranks = 0;                       // plan: 0 is the number running
  std::string svg;                     // plan: also draw to this file
  std::string cores;                   // what share_cores found, in words

  std::string config_file() const { return config.empty() ? "tools/configs/digits.toml" : config; }
};

// SIGTERM, SIGINT and SIGUSR1 end a run after its step in hand, with a checkpoint; a second SIGINT at once.
// To be called before any thread starts.
void stop_on_signals();
int train(const CommandLine&, World&);
int evaluate(const CommandLine&, World&);
int generate(const CommandLine&, World&);
int show_plan(const CommandLine&, World&);

// "4.2 GB", "310 KB"
std::string bytes_text(double bytes);

}  // namespace mimo
