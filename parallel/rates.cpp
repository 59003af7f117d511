#include "parallel/rates.h"

#include "parallel/transports.h"

namespace mimo {

double all_reduce_seconds(const Traffic& t, int ranks, const Rates& rates) {
  if (ranks == 1 || t.messages == 0) return 0;
  const double n = ranks, messages = static_cast<double>(t.messages), bytes = static_cast<double>(t.bytes);
  const bool direct = reduces_directly(t.bytes / t.messages, ranks, Limits{});
  const double rounds = direct ? 1 : 2, received = (n - 1) * bytes * (direct ? 1 : 2 / n);
  return messages * rounds * rates.latency + received / rates.bandwidth +
         (n + 1) * bytes / (direct ? 1 : n) / rates.memory;
}

}  // namespace mimo
