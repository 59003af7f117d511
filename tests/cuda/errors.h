// The table of what compare() measured, printed behind the last test where MIMO_ERRORS=1: for every result of
// every test the run that came nearest to what is allowed, nearest first.
#pragma once
#include <string>

namespace mimo::op_test {

// Of the current test; `largest`: the largest element there should be.
void record_error(const std::string& result, const char* dtype, const char* way, double error, double allowed,
                  double largest);

}  // namespace mimo::op_test
