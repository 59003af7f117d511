// mimo-bench: kernel benchmarks against this machine's own limits.
//
// A file tools/bench/<op>.cpp registers benchmarks with google-benchmark (`UseRealTime()`, since kernels have
// their own threads) and sets counters per iteration:
//   FLOP      floating-point operations          bytes     memory traffic at least needed, read and written
//   baseline  seconds of what a user would take instead, measured in the same run (optional)
// The limit of a benchmark is its roofline: the longer of FLOP / peak and bytes / bandwidth, where peak is a
// large sgemm and bandwidth that of y = x or y += x, the faster, over as many bytes (so that what lies in a
// cache is held against that cache), both measured first at the same number of threads. What writes where it
// read, and so moves a line once for two counts, can exceed 100 % of it.
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

// The fastest of many short trials: what other processes take of the machine is not its limit.
struct Limits {
  static constexpr int64_t kSmallest = 16 << 10, kLargest = 256 << 20;  // bytes of both arrays
  double flop_per_second;
  std::vector<double> stream;  // bytes per second, at kSmallest, 4 times that, ... , kLargest

  // Of the faster of y = x and y += x over two arrays of together as many bytes, so in the same cache.
  double bytes_per_second(double bytes) const {
    size_t i = 0;
    for (double size = 4 * kSmallest; i + 1 < stream.size() && bytes >= size; size *= 4) ++i;
    return stream[i];
  }
};

// Bytes a second of f(y, x, n), a stream over two arrays that moves `streams` n bytes.
template <class F>
double stream_rate(int64_t moved, int streams, F f) {
  const int64_t size = moved / 2, piece = std::min<int64_t>(size / omp_get_max_threads(), 1 << 20);
  const int64_t group = piece * omp_get_max_threads();  // timed at once; repeated where it is short
  const int64_t groups = size / group, repeats = std::max<int64_t>(1, (1 << 20) / group);
  const std::vector<float> from(size / 4, 1);
  std::vector<float> to(size / 4);
  double best = 1e30;
  for (int64_t g = 0, end = std::max<int64_t>(200, groups); g < end; ++g) {
    const int64_t begin = g % groups * group;
    best = std::min(best, best_seconds(1, [&] {
#pragma omp parallel if (group > 128 << 10)
                      for (int64_t r = 0; r < repeats; ++r) {
#pragma omp for schedule(static) nowait
                        for (int64_t i = begin; i < begin + group; i += piece)
                          f(to.data() + i / 4, from.data() + i / 4, piece / 4);
                      }
                    }));
  }
  return static_cast<double>(streams) * static_cast<double>(group * repeats) / best;
}

Limits measure_limits() {
  Limits limits{0, {}};
  constexpr int64_t shapes[][3] = {{1024, 1024, 1024}, {2048, 768, 192}, {2048, 2048, 2048}};
  const std::vector<float> a(2048 * 2048, 1), b(2048 * 2048, 1);
  std::vector<float> c(2048 * 2048);
  for (const auto& [m, n, k] : shapes) {
    const double seconds =
        best_seconds(10, [&] { dnnl_sgemm('N', 'T', m, n, k, 1, a.data(), k, b.data(), k, 0, c.data(), n); });
    limits.flop_per_second = std::max(limits.flop_per_second, 2.0 * static_cast<double>(m * n * k) / seconds);
  }
  for (int64_t moved = Limits::kSmallest; moved <= Limits::kLargest; moved *= 4) {
    const double copy =
        stream_rate(moved, 2, [](float* y, const float* x, int64_t n) { std::memcpy(y, x, n * 4); });
    const double add = stream_rate(moved, 3, [](float* y, const float* x, int64_t n) {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] += x[i];
    });
    limits.stream.push_back(std::max(copy, add));
  }
  return limits;
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
    const double gflops = limits_.flop_per_second / 1e9, gbytes = limits_.stream.back() / 1e9;
    if (json_) {
      dump_ = {{"cpu", cpu},
               {"loadavg", load},
               {"threads", omp_get_max_threads()},
               {"peak_gflops", gflops},
               {"copy_gbytes", gbytes},
               {"benchmarks", nlohmann::json::array()}};
      return true;
    }
    fmt::print("{}, {} threads, load {}\nlimits: sgemm {:.0f} GFLOP/s, copy or add", cpu,
               omp_get_max_threads(), load, gflops);
    int64_t size = Limits::kSmallest >> 10;
    for (const double rate : limits_.stream) fmt::print(" {:.0f} ({} KB)", rate / 1e9, size), size *= 4;
    fmt::print(" GB/s\n\n");
    fmt::print("{:<58} {:>11} {:>16} {:>9} {:>9}\n", "name", "us", "rate", "of limit", "baseline");
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    const Run* fastest = nullptr;
    for (const Run& run : runs) {
      if (run.error_occurred) {
        fmt::print(stderr, "{}: {}\n", run.benchmark_name(), run.error_message);
        failed_ = true;
      } else if (run.run_type == Run::RT_Iteration &&
                 (!fastest || run.GetAdjustedRealTime() < fastest->GetAdjustedRealTime())) {
        fastest = &run;
      }
    }
    if (fastest) report(*fastest);
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
    const double compute = flop / limits_.flop_per_second, memory = bytes / limits_.bytes_per_second(bytes);
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
  --benchmark_filter=REGEX, --benchmark_min_time=SECONDS (0.02), --benchmark_repetitions=N (5), ...
Columns: time of one call, of the fastest repetition; the rate; the rate as a share of what this machine's sgemm or copy speed allows;
how many times as fast as the baseline, where there is one.
example: ./mimo-bench --threads=1 --benchmark_filter=attention
)";

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  // Short and often: the fastest of five leaves out the turns of other processes. Later flags win.
  std::string defaults[] = {"--benchmark_min_time=0.02", "--benchmark_repetitions=5"};
  std::vector<char*> rest{argv[0], defaults[0].data(), defaults[1].data()};
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
