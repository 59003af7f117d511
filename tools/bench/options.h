// What the command line of mimo-bench chose.
#pragma once

namespace mimo::bench {

struct Options {
  bool json = false;
  bool small = false;  // the CPU's sizes on a GPU
  bool torch = true;   // compare with torch where there is one
};
Options& options();

void register_all();  // every benchmark with google-benchmark; the current stream has the device

}  // namespace mimo::bench
