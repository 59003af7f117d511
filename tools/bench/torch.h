// What torch takes for the same work on the same GPU: a child process, `python3` with a small script, asked a
// line at a time.
#pragma once
#include <benchmark/benchmark.h>

#include <map>
#include <string>

namespace mimo::bench {

// "2.9.0, CUDA 13.0, cuDNN 91500", or why it is not measured. Starts the child.
std::string torch_state();

// Sets a baseline of this name to what an expression of the script's functions takes (torch.cpp), the fastest
// time so far: every repetition asks anew. Nothing where there is no torch, or where it cannot compute this.
void compare_with_torch(benchmark::State&, const std::string& name, const std::string& expression);
const char* python(bool);  // as the script writes it

// The names of baselines that torch could not compute, and why.
std::map<std::string, std::string> torch_absences();

}  // namespace mimo::bench
