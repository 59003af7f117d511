// What this machine does in a second, tried out in some tens of milliseconds.
#pragma once
#include <array>

#include "parallel/rates.h"
#include "tools/run/job.h"

namespace mimo {

// machine.* where given, else the defaults.
Rates given_rates(const Config&);

struct MachineRates {
  Rates rates;
  std::array<std::string, 4> origin;  // of each: "given", "measured" or "assumed"
  std::string text() const;           // "41.0 GFLOP/s in ..., 20.1 GB/s of memory (measured); ..."
};

// The rates that the configuration does not give, measured on the current device with all of `world` at work;
// equal on all its ranks. Collective.
// flops: one-layer stages of the job's own modules, cut as its tensor parallel ranks are, with the samples of
// a wave, forward and backward: their operations (nn/costs.h) by their seconds. Assumed where every layer is
// too large to be made for that. memory: copies. latency, bandwidth: short and long messages around the ring
// of ranks; assumed where there is one rank.
MachineRates measure_rates(const Job&, World& world);
// None measured.
MachineRates assumed_rates(const Config&);

}  // namespace mimo
