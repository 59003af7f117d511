// The main program of tests that need ranks. A test file defines kRanks and writes its tests so that every
// rank runs all of them; a failure on any rank is a failure of the test, reported by rank 0.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "parallel/world.h"

// The rank counts this program wants, as in "1 2 4"; tests/run.sh runs it once with each.
extern const char* const kRanks;

namespace mimo {

World& test_world();
Communicator& test_comm();  // the world's

// What each rank of `mpirun PROGRAM --role NAME` does instead of the tests, with the errors and exit status
// of a real program: for tests of jobs that end badly.
using Role = int (*)(World&);
bool add_role(const std::string& name, Role);

}  // namespace mimo
