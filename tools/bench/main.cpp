// mimo-bench: kernel benchmarks against this machine's own limits, on its CPU or its GPU; and, with `step`,
// a whole training step (step.h).
//
// A file tools/bench/<op>.cpp registers benchmarks with google-benchmark (bench.h), which set counters per
// iteration:
//   FLOP      floating-point operations          bytes     memory traffic at least needed, read and written
//   baseline  seconds of what a user would take instead, measured in the same run (optional); on a GPU those
//   of
//             torch (torch.h), by the name of the way it computes
// The limit of a benchmark is its roofline: the longer of FLOP / peak and bytes / bandwidth, where peak is
// that of multiply-adds in registers (on a GPU a large product) and bandwidth that of y = x (on a CPU or y +=
// x, the faster) over as many bytes (so that what lies in a cache is held against that cache), both measured
// first. What writes where it read, and so moves a line once for two counts, can exceed 100 % of it.
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/threads.h"
#include "tensor/cuda.h"
#include "tools/bench/bench.h"
#include "tools/bench/limits.h"
#include "tools/bench/options.h"
#include "tools/bench/step.h"
#include "tools/bench/torch.h"

namespace mimo::bench {

namespace {

std::string first_line(const char* path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return line.substr(line.find(key.empty() ? "" : ": ") + (key.empty() ? 0 : 2));
  return "unknown";
}

class Reporter : public benchmark::BenchmarkReporter {
 public:
  explicit Reporter(Limits limits) : limits_(std::move(limits)) {}

  bool ReportContext(const Context&) override {
    if (options().check) {
      fmt::print("{:<68} {:>16}  {}\n", "name", "error / allowed", "");
      return true;
    }
    const std::string load = first_line("/proc/loadavg", "");
    std::string machine = first_line("/proc/cpuinfo", "model name");
    if (on_gpu()) {
      const cuda::DeviceInfo gpu = cuda::device_info(current_stream().device.index);
      machine = fmt::format("{}, {} multiprocessors, driver {}", gpu.name, gpu.sms, gpu.driver);
    }
    const double *flop = limits_.flop_per_second, bytes = limits_.stream.back() / 1e9;
    if (options().json) {
      dump_ = {{on_gpu() ? "gpu" : "cpu", machine},
               {"loadavg", load},
               {"threads", thread_count()},
               {"peak_gflops", flop[0] / 1e9},
               {"peak_bf16_gflops", flop[1] / 1e9},
               {"copy_gbytes", bytes},
               {"benchmarks", nlohmann::json::array()}};
      return true;
    }
    if (on_gpu())
      fmt::print("{}\nlimits: cuBLASLt f32 {:.1f}, bf16 {:.1f} TFLOP/s, copy", machine, flop[0] / 1e12,
                 flop[1] / 1e12);
    else
      fmt::print("{}, {} threads, load {}\nlimits: multiply-adds {:.0f} GFLOP/s, copy or add", machine,
                 thread_count(), load, flop[0] / 1e9);
    int64_t size = Limits::kSmallest >> 10;
    for (const double rate : limits_.stream) fmt::print(" {:.0f} ({} KB)", rate / 1e9, size), size *= 4;
    fmt::print(" GB/s\n");
    if (on_gpu()) fmt::print("torch: {}\n", torch_state());
    fmt::print("\n{:<68} {:>11} {:>16} {:>9}  {}\n", "name", "us", "rate", "of limit",
               on_gpu() ? "times as fast as" : "baseline");
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    const Run* fastest = nullptr;
    for (const Run& run : runs) {
      if (run.error_occurred) {
        if (options().check) fmt::print("{:<68} {:>16}  WRONG\n", name_of(run), "");
        fmt::print(stderr, "{}: {}\n", run.benchmark_name(), run.error_message);
        failed_ = true;
      } else if (run.run_type == Run::RT_Iteration &&
                 (!fastest || run.GetAdjustedRealTime() < fastest->GetAdjustedRealTime())) {
        fastest = &run;
      }
    }
    if (fastest && options().check)
      fmt::print("{:<68} {:>16.3f}  ok\n", name_of(*fastest), fastest->counters.at("error").value);
    else if (fastest)
      report(*fastest, runs);
    std::fflush(stdout);
  }

  void Finalize() override {
    if (on_gpu() && !options().json && !options().check)
      for (const auto& [name, why] : torch_absences()) fmt::print("absent: {}: {}\n", name, why);
    if (options().json) fmt::print("{}\n", dump_.dump(1));
  }
  bool failed() const { return failed_; }

 private:
  static std::string name_of(const Run& run) {
    benchmark::BenchmarkName name = run.run_name;
    name.time_type.clear(), name.iterations.clear();
    return name.str();
  }

  // The fastest of the repetitions, beside the fastest of what others take.
  void report(const Run& run, const std::vector<Run>& all) {
    const auto counter = [&](const char* name) {
      const auto it = run.counters.find(name);
      return it == run.counters.end() ? 0.0 : it->second.value;
    };
    const double launches = std::max(1.0, counter("launches"));
    const double seconds =
        run.GetAdjustedRealTime() / benchmark::GetTimeUnitMultiplier(run.time_unit) / launches;
    const double flop = counter("FLOP"), bytes = counter("bytes");
    const double compute = flop / limits_.flop_per_second[counter("bf16") > 0 ? 1 : 0],
                 memory = bytes / limits_.bytes_per_second(bytes);
    const double percent = 100 * std::max(compute, memory) / seconds;
    std::string baselines;
    nlohmann::json ratios = nlohmann::json::object();
    for (const auto& [name, first] : run.counters) {
      if (!name.starts_with("baseline")) continue;
      double value = first.value;
      for (const Run& other : all)
        if (other.counters.count(name)) value = std::min(value, other.counters.at(name).value);
      const std::string of = name.size() > 9 ? name.substr(9) : "";  // "baseline flash"
      baselines += fmt::format("{}{:.2f}x{}", baselines.empty() ? "" : ", ", value / seconds,
                               of.empty() ? "" : " " + of);
      ratios[of.empty() ? "baseline" : of] = value / seconds;
    }
    const std::string name = name_of(run);
    if (options().json) {
      dump_["benchmarks"].push_back({{"name", name},
                                     {"us", seconds * 1e6},
                                     {"FLOP", flop},
                                     {"bytes", bytes},
                                     {"percent_of_limit", percent},
                                     {"bound", compute >= memory ? "FLOP" : "bytes"},
                                     {"ratios", ratios}});
      return;
    }
    const double rate = (compute >= memory ? flop : bytes) / seconds / 1e9;
    const bool tera = on_gpu() && compute >= memory;
    fmt::print("{:<68} {:>11.2f} {:>16} {:>7.0f} %  {}\n", name, seconds * 1e6,
               fmt::format("{:.1f} {}", tera ? rate / 1e3 : rate,
                           tera                ? "TFLOP/s"
                           : compute >= memory ? "GFLOP/s"
                                               : "GB/s"),
               percent, baselines);
  }

  Limits limits_;
  bool failed_ = false;
  nlohmann::json dump_;
};

constexpr const char* usage =
    R"(mimo-bench [--device=cpu|cuda] [--threads=N] [--small] [--torch=no] [--check] [--json] [google-benchmark's flags]
mimo-bench step [--device=cpu|cuda] [--threads=N] [--small] [--steps=N] [--json]
  --device=cuda on the GPU, at sizes of large models (default: cpu)
  --small       on the GPU, but at the CPU's sizes
  --torch=no    on the GPU: without the figures of a torch that python3 finds
  --check       no times: a sample of what each case computes against the CPU in double precision; status 1 if one is wrong
  --threads=N   threads (default: all cores)
  --json        one JSON object instead of a table
  --benchmark_filter=REGEX, --benchmark_min_time=SECONDS (0.02), --benchmark_repetitions=N (5), ...
Columns: time of one call, of the fastest repetition; the rate; the rate as a share of what a large product or a copy
reaches on this machine; how many times as fast as what a user would take instead, where that is measured.
step: training steps of a vision transformer and a hybrid language model on a packed batch that is made up: milliseconds by
op, the host's time to queue them, tokens/s, the share of the stated peak (MFU), memory. 2.2 thousand million parameters
on a GPU, which takes about 70 GB.
  --steps=N     steps to time (10), after two that are not
example: ./mimo-bench --threads=1 --benchmark_filter=attention
)";

int wrong(const std::string& option, const std::string& expected) {
  fmt::print(stderr, "error: {}: expected {}\n", option, expected);
  return 2;
}

}  // namespace
}  // namespace mimo::bench

int main(int argc, char** argv) {
  using namespace mimo;
  using namespace mimo::bench;
  bool gpu = false, whole_step = false;
  // Short and often: the fastest of five leaves out the turns of other processes. Later flags win.
  std::string defaults[] = {"--benchmark_min_time=0.02", "--benchmark_repetitions=5"};
  std::vector<char*> rest{argv[0], defaults[0].data(), defaults[1].data()};
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i], value = arg.substr(std::min(arg.find('=') + 1, arg.size()));
    if (arg == "--help" || arg == "-h") {
      fmt::print("{}", usage);
      return 0;
    }
    if (arg == "--json") {
      options().json = true;
    } else if (arg == "--check" && !whole_step) {
      options().check = true;
    } else if (arg == "--small") {
      options().small = true;
    } else if (arg.starts_with("--torch=")) {
      if (value != "yes" && value != "no") return wrong(arg, "yes or no");
      options().torch = value == "yes";
    } else if (arg.starts_with("--device=")) {
      if (value != "cpu" && value != "cuda") return wrong(arg, "cpu or cuda");
      gpu = value == "cuda";
    } else if (arg == "step" && i == 1) {
      whole_step = true;
    } else if (arg.starts_with("--steps=") && whole_step) {
      options().steps = std::atoi(value.c_str());
      if (options().steps < 1 || options().steps > 10000) return wrong(arg, "a number from 1 to 10000");
    } else if (whole_step && arg.starts_with("--benchmark")) {
      return wrong(arg, "no option of benchmarks after step");
    } else if (arg.starts_with("--threads=")) {
      const int n = std::atoi(value.c_str());
      if (n < 1) return wrong(arg, "a positive number");
      set_thread_count(n);
    } else {
      rest.push_back(argv[i]);
    }
  }
  if (gpu && cuda::device_count() == 0) {
    fmt::print(stderr, "error: --device=cuda: no GPU ({})\n", cuda::why_no_device());
    return 2;
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  try {
    if (gpu) current_stream() = make_stream({Device::Kind::cuda, 0});
    if (whole_step) return step();
    register_all();
    Reporter reporter(options().check ? Limits{} : measure_limits());
    const bool any = benchmark::RunSpecifiedBenchmarks(&reporter) > 0;
    return any && !reporter.failed() ? 0 : 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
