// Errors come before training: everything that can be checked at start is checked on every rank before any
// other collective, and then all ranks agree.
#pragma once
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace mimo {

// A failure that every rank throws, in the same words: no rank waits for another, and one message is enough.
struct AgreedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Collective over the world, the first one. Every rank passes its first error, or nothing; rank 0 prints the
// lowest failing rank's as "error: ..." to stderr, once. True where no rank has one; else every rank should
// end with status 2, nothing written. Where no rank gets on for start_timeout(), the job ends.
bool agree(Communicator& world, const std::string& error);

// Runs the checks and agrees on the ConfigError they throw; what else they throw is a failure of this rank.
bool agree(Communicator& world, const std::function<void()>& checks);

// What all ranks must have alike.
struct Fact {
  std::string name;  // "configuration"
  std::string text;  // any number of lines; of TOML, the message names the key that differs
  std::string hint;
};

// Collective. True where every rank's facts are rank 0's; else the first difference of the lowest rank that
// has one is printed as in agree().
bool agree_on(Communicator& world, const std::vector<Fact>& facts);

}  // namespace mimo
