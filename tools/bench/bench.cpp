#include "tools/bench/bench.h"

#include <algorithm>
#include <cstring>

#include "tensor/cuda.h"
#include "tools/bench/options.h"

namespace mimo::bench {

Options& options() {
  static Options o;
  return o;
}

bool large() { return on_gpu() && !options().small; }

void fill_storage(Storage& to, std::span<const std::byte> block) {
  const Stream& stream = current_stream();
  const auto copy = [&](std::byte* at, const std::byte* from, int64_t bytes) {
    if (on_gpu())
      cuda::copy(at, from, bytes, stream.handle());
    else
      std::memcpy(at, from, static_cast<size_t>(bytes));
  };
  static const std::vector<std::byte> zeros(1 << 20);
  if (block.empty()) block = zeros;
  auto* data = static_cast<std::byte*>(to.data);
  // The block, then what is there as often as it has been doubled.
  int64_t done = std::min(to.bytes, static_cast<int64_t>(block.size()));
  if (done > 0) copy(data, block.data(), done);
  for (; done < to.bytes; done += std::min(done, to.bytes - done))
    copy(data + done, data, std::min(done, to.bytes - done));
  synchronize(stream);
}

Array<int32_t> packed(int sequences, int length) {
  std::vector<int32_t> cu(sequences + 1);
  for (int i = 0; i <= sequences; ++i) cu[i] = i * length;
  return cu;
}

namespace {

double seconds_of(int64_t launches, const std::function<void()>& launch) {
  const Event begin(current_stream(), true);
  for (int64_t i = 0; i < launches; ++i) launch();
  const Event end(current_stream(), true);
  end.synchronize();
  return end.since(begin);
}

std::vector<std::function<void()>>& registrations() {
  static std::vector<std::function<void()>> all;
  return all;
}

}  // namespace

void repeat(benchmark::State& state, const std::function<void()>& launch) {
  if (!on_gpu()) {
    for (auto _ : state) {
      launch();
      benchmark::ClobberMemory();
    }
    return;
  }
  // The first calls load kernels and choose algorithms. Then as many as take 2 ms, beside which the
  // microseconds of the events do not count.
  launch();
  int64_t launches = 1;
  for (double seconds = 0; (seconds = seconds_of(launches, launch)) < 2e-3 && launches < 4096;)
    launches = std::clamp<int64_t>(static_cast<int64_t>(2.5e-3 / std::max(seconds, 1e-6) * double(launches)),
                                   2 * launches, 4096);
  for (auto _ : state) state.SetIterationTime(seconds_of(launches, launch));
  state.counters["launches"] = static_cast<double>(launches);
}

// A case of several calls keeps the worst of them.
void check_call(benchmark::State& state, const std::function<void(Check&)>& sample,
                const std::function<void()>& launch) {
  Check check;
  sample(check);
  launch();
  synchronize(current_stream());
  std::string worst;
  const double error = check.judge(worst);
  benchmark::Counter& most = state.counters["error"];
  most = std::max(most.value, error);
  if (error > 1) state.SkipWithError(worst.c_str());
}

void later(std::function<void()> registration) { registrations().push_back(std::move(registration)); }

void register_all() {
  for (const auto& registration : registrations()) registration();
}

benchmark::internal::Benchmark* add_case(const std::string& name, Run run) {
  auto* b = benchmark::RegisterBenchmark(name.c_str(), [run](benchmark::State& state) {
    try {
      run(state);
      if (options().check)
        for (auto _ : state) state.SetIterationTime(1e-6);
    } catch (const std::exception& e) {
      state.SkipWithError(e.what());
    }
  });
  b->Unit(benchmark::kMicrosecond);
  if (options().check) b->Iterations(1);
  return on_gpu() ? b->UseManualTime() : b->UseRealTime();
}

}  // namespace mimo::bench
