// What the command line of mimo-bench chose.
#pragma once

namespace mimo::bench {

struct Options {
  bool json = false;
  bool small = false;  // the CPU's sizes on a GPU
  bool check = false;  // compare results with double, in place of timing
  bool torch = true;   // compare with torch where there is one
  int steps = 10;      // of `mimo-bench step`, timed
};
Options& options();

void register_all();  // every benchmark with google-benchmark; the current stream has the device

}  // namespace mimo::bench
