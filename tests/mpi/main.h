// The main program of tests that need ranks. A test file defines kRanks and writes its tests so that every
// rank runs all of them; a failure on any rank is a failure of the test, reported by rank 0.
#pragma once
#include <gtest/gtest.h>

#include "parallel/communicator.h"

// The rank counts this program wants, as in "1 2 4"; tests/run.sh runs it once with each.
extern const char* const kRanks;

namespace mimo {

World& test_world();
Communicator& test_comm();  // the world's

}  // namespace mimo
