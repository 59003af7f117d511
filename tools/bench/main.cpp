// mimo-bench: kernel benchmarks against this machine's own limits.
//
// A file tools/bench/<op>.cpp registers benchmarks with google-benchmark (`UseRealTime()`, since kernels have
// their own threads) and sets counters per iteration:
//   FLOP      floating-point operations          bytes     memory traffic at least needed, read and written
//   baseline  seconds of what a user would take instead, measured in the same run (optional)
// The limit of a benchmark is its roofline: the longer of FLOP / peak and bytes / bandwidth, where peak is a
// large sgemm and bandwidth a large copy, both measured first at the same number of threads. What stays in
// caches can exceed 100 % of the second.
#include <benchmark/benchmark.h>
#include <dnnl.h>
#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

template <class F>
double best_seconds(int repeats, F f) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

struct Limits {
  double flop_per_second, bytes_per_second;
};

Limits measure_limits() {
  constexpr int64_t n = 2048;
  const std::vector<float> a(n * n, 1), b(n * n, 1);
  std::vector<float> c(n * n);
  const double product =
      best_seconds(5, [&] { dnnl_sgemm('N', 'N', n, n, n, 1, a.data(), n, b.data(), n, 0, c.data(), n); });

  constexpr int64_t size = 256 << 20, piece = 1 << 20;
  std::vector<char> from(size, 1), to(size);
  const double copy = best_seconds(5, [&] {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < size; i += piece) std::memcpy(to.data() + i, from.data() + i, piece);
  });
  return {2.0 * n * n * n / product, 2.0 * size / copy};
}

std::string first_line(const char* path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return line.substr(line.find(key.empty() ? "" : ": ") + (key.empty() ? 0 : 2));
  return "unknown";
}

class Reporter : public benchmark::BenchmarkReporter {
 public:
  Reporter(Limits limits, bool json) : limits_(limits), json_(json) {}

  bool ReportContext(const Context&) override {
    const std::string cpu = first_line("/proc/cpuinfo", "model name"), load = first_line("/proc/loadavg", "");
    const double gflops = limits_.flop_per_second / 1e9, gbytes = limits_.bytes_per_second / 1e9;
    if (json_) {
      dump_ = {{"cpu", cpu},
               {"loadavg", load},
               {"threads", omp_get_max_threads()},
               {"peak_gflops", gflops},
               {"copy_gbytes", gbytes},
               {"benchmarks", nlohmann::json::array()}};
      return true;
    }
    fmt::print("{}, {} threads, load {}\nlimits: sgemm {:.0f} GFLOP/s, copy {:.1f} GB/s\n\n", cpu,
               omp_get_max_threads(), load, gflops, gbytes);
    fmt::print("{:<58} {:>11} {:>16} {:>9} {:>9}\n", "name", "us", "rate", "of limit", "baseline");
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.error_occurred) {
        fmt::print(stderr, "{}: {}\n", run.benchmark_name(), run.error_message);
        failed_ = true;
        continue;
      }
      if (run.run_type != Run::RT_Iteration && run.aggregate_name != "median") continue;
      report(run);
    }
    std::fflush(stdout);
  }

  void Finalize() override {
    if (json_) fmt::print("{}\n", dump_.dump(1));
  }
  bool failed() const { return failed_; }

 private:
  void report(const Run& run) {
    const auto counter = [&](const char* name) {
      const auto it = run.counters.find(name);
      return it == run.counters.end() ? 0.0 : it->second.value;
    };
    const double seconds = run.GetAdjustedRealTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
    const double flop = counter("FLOP"), bytes = counter("bytes"), baseline = counter("baseline");
    const double compute = flop / limits_.flop_per_second, memory = bytes / limits_.bytes_per_second;
    const double percent = 100 * std::max(compute, memory) / seconds;
    benchmark::BenchmarkName unsuffixed = run.run_name;
    unsuffixed.time_type.clear();
    const std::string name = unsuffixed.str();
    if (json_) {
      nlohmann::json row{
          {"name", name},   {"us", seconds * 1e6},         {"FLOP", flop},
          {"bytes", bytes}, {"percent_of_limit", percent}, {"bound", compute >= memory ? "FLOP" : "bytes"}};
      if (baseline > 0) row["baseline_ratio"] = baseline / seconds;
      dump_["benchmarks"].push_back(std::move(row));
      return;
    }
    const std::string rate = compute >= memory ? fmt::format("{:.1f} GFLOP/s", flop / seconds / 1e9)
                                               : fmt::format("{:.1f} GB/s", bytes / seconds / 1e9);
    const std::string ratio = baseline > 0 ? fmt::format("{:.2f}x", baseline / seconds) : "";
    fmt::print("{:<58} {:>11.2f} {:>16} {:>7.0f} % {:>9}\n", name, seconds * 1e6, rate, percent, ratio);
  }

  Limits limits_;
  bool json_, failed_ = false;
  nlohmann::json dump_;
};

constexpr const char* usage =
    R"(mimo-bench [--threads=N] [--json] [google-benchmark's flags]
  --threads=N   OpenMP threads (default: all cores)
  --json        one JSON object instead of a table
  --benchmark_filter=REGEX, --benchmark_min_time=SECONDS, --benchmark_repetitions=N (prints the median too), ...
Columns: time of one call; the rate; the rate as a share of what this machine's sgemm or copy speed allows;
how many times as fast as the baseline, where there is one.
example: ./mimo-bench --threads=1 --benchmark_filter=attention
)";

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--help" || arg == "-h") {
      fmt::print("{}", usage);
      return 0;
    }
    if (arg == "--json") {
      json = true;
    } else if (arg.starts_with("--threads=")) {
      const int n = std::atoi(arg.c_str() + 10);
      if (n < 1) {
        fmt::print(stderr, "error: --threads: expected a positive number, found '{}'\n", arg.substr(10));
        return 2;
      }
      omp_set_num_threads(n);
    } else {
      rest.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  Reporter reporter(measure_limits(), json);
  const bool any = benchmark::RunSpecifiedBenchmarks(&reporter) > 0;
  return any && !reporter.failed() ? 0 : 1;
}
