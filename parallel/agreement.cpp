#include "parallel/agreement.h"

#include <algorithm>
#include <cstdio>

#include "parallel/watchdog.h"

namespace mimo {
bool agree(Communicator& world, const std::string& error) {
  Watchdog watchdog(world, start_timeout(), nullptr, "MIMO_START_TIMEOUT");
  watchdog.begin("the agreement of all ranks at start");
  Stream& stream = current_stream();
  const std::vector<int64_t> one_each(world.size(), 1);
  std::vector<int64_t> lengths(world.size());
  int64_t mine = static_cast<int64_t>(error.size());
  world.all_gather({&mine, 1, DType::i64}, {lengths.data(), world.size(), DType::i64}, one_each, stream)
      .wait();
  const auto first = std::find_if(lengths.begin(), lengths.end(), [](int64_t n) { return n > 0; });
  if (first == lengths.end()) return true;
  std::string message = error;
  message.resize(*first);
  world.broadcast({message.data(), *first, DType::u8}, static_cast<int>(first - lengths.begin()), stream)
      .wait();
  if (world.rank() == 0) {
    std::fprintf(stderr, "error: %s\n", message.c_str());
    std::fflush(stderr);
  }
  return false;
}

bool agree(Communicator& world, const std::function<void()>& checks) {
  std::string error;
  try {
    checks();
  } catch (const ConfigError& e) {
    error = e.what();
  }
  return agree(world, error);
}

}  // namespace mimo
