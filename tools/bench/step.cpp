#include "tools/bench/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "kernels/cpu/threads.h"
#include "nn/costs.h"
#include "parallel/optimizer.h"
#include "parallel/step_sums.h"
#include "tensor/clock.h"
#include "tensor/cuda.h"
#include "tensor/profile.h"
#include "tools/bench/bench.h"
#include "tools/bench/options.h"

namespace mimo::bench {
namespace {

// C-RADIOv2-H (652 million parameters) before a language model of 1.6 thousand million in the manner of
// Nemotron-H, half the width of its 8 thousand million; or small ones with layers of the same kinds.
int64_t vocabulary(bool large) { return large ? 131072 : 64; }

ModelSpec model_of(bool large) {
  Schema schema;
  declare_run_keys(schema);
  declare_model_keys(schema);
  const char* text = large ? R"(
[train]
dtype = "bf16"
[module.vision]
kind = "vit"
hidden = 1280
ffn = 5120
layers = 32
heads = 16
patch = 16
class_tokens = 8
grid = 128
projector = "affine"
[module.language]
kind = "hybrid"
pattern = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-"
hidden = 2048
heads = 16
kv_heads = 4
head_dim = 128
ffn = 8192
ssm_heads = 64
ssm_head_dim = 64
ssm_groups = 8
ssm_state = 128
ssm_chunk = 64
)"
                           : R"(
[train]
dtype = "bf16"
[module.vision]
kind = "vit"
hidden = 32
ffn = 64
layers = 2
heads = 2
patch = 4
class_tokens = 8
grid = 8
projector = "affine"
[module.language]
kind = "hybrid"
pattern = "M-M*-"
hidden = 32
heads = 2
kv_heads = 2
head_dim = 16
ffn = 64
ssm_heads = 4
ssm_head_dim = 16
ssm_groups = 2
ssm_state = 16
ssm_chunk = 32
)";
  return model_spec(parse_config(schema, text, "the benchmark's model"),
                    {vocabulary(large), {{.name = "image", .channels = 3}}});
}

struct Batch {
  PackedBatch packed;
  std::vector<SampleSizes> sizes;
};

// Sequences of equal length, each of them images of equal size and then text; every token of the text is to
// be predicted.
Batch batch_of(const ModelSpec& model, bool large) {
  const int sequences = 2, length = large ? 4096 : 64, images = large ? 4 : 2, side = large ? 32 : 4;
  const int rows = side * side / 4;  // of the stream that an image fills
  const int patch = model[0].items()->preprocessing.patch;
  Batch b;
  PackedBatch& p = b.packed;
  PackedItems items;
  items.cu_items = {0};
  p.cu_seqlens = {0};
  uint32_t bits = 1;
  const auto random = [&] { return (bits = bits * 1664525 + 1013904223) >> 8; };
  for (int s = 0; s < sequences; ++s) {
    p.samples.push_back(s);
    SampleSizes sizes{length, 0, {{}}};
    for (int i = 0; i < images; ++i) {
      items.sizes.insert(items.sizes.end(), {1, side, side});
      items.cu_items.push_back(items.cu_items.back() + side * side);
      sizes.items[0].push_back({side, side, rows});
    }
    for (int t = 0; t < length; ++t) {
      const bool text = t >= images * rows;
      if (!text) items.rows.push_back(static_cast<int32_t>(p.tokens.size()));
      p.tokens.push_back(text ? static_cast<int32_t>(random() % vocabulary(large)) : 0);
      p.positions.push_back(t);
    }
    for (int t = 0; t < length; ++t) {
      const bool counts = t + 1 < length && t + 1 >= images * rows;
      p.labels.push_back(counts ? p.tokens[p.cu_seqlens.back() + t + 1] : -1);
      sizes.counted += counts;
    }
    p.cu_seqlens.push_back(static_cast<int32_t>(p.tokens.size()));
    p.counted += sizes.counted;
    b.sizes.push_back(sizes);
  }
  const int64_t patches = items.cu_items.back(), features = int64_t{3} * patch * patch;
  std::vector<float> pixels(static_cast<size_t>(patches * features));
  for (float& x : pixels) x = static_cast<float>(random()) * 0x1p-23f - 1;
  items.patches = cast(Tensor::of(pixels, {patches, features}), model.dtype);
  p.items.push_back(std::move(items));
  return b;
}

// What a step took, in seconds.
struct Times {
  double device = 0;      // from its first kernel to its last
  double queue = 0;       // of the host, without waiting for the gradients' norm
  double phases[5] = {};  // of the device
  double loss = 0;
};
constexpr const char* kPhases[] = {"vision forward", "language forward", "language backward",
                                   "vision backward", "norm and update"};

class Training {
 public:
  Training(const ModelSpec& model, const Batch& batch) : batch_(batch), sums_(model.sums()) {
    for (int m = 0; m < 2; ++m) {
      const MemoryLabel label(kModules[m]);
      stages_.push_back(make_stage(model, m, Grid{}, 0, Coord{}, nullptr));
      for (Parameter* p : stages_.back()->parameters())
        parameters_.push_back(p), count_[m] += p->value.numel();
    }
    const MemoryLabel label("optimizer");
    optimizer_ = std::make_unique<Optimizer>(parameters_, AdamOptions{});
    synchronize(current_stream());
  }
  int64_t parameters(int module) const { return count_[module]; }

  // Forward, backward, the norm of the gradients (which the host waits for, as in training) and an update.
  Times operator()() {
    Times times;
    const double start = now();
    std::vector<Event> marks{mark()};
    Sums sums_of_step(sums_);
    Step step(sums_of_step);
    const auto run = [&](int module, const auto& f) {
      const MemoryLabel label(kModules[module]);
      f();
      marks.push_back(mark());
    };
    Tensor seen, features, loss;
    run(0, [&] { seen = stages_[0]->forward({}, batch_.packed, step).at(0); });
    features = leaf(seen.detach());
    run(1, [&] {
      stages_[1]->forward({&features, 1}, batch_.packed, step);
      loss = step.losses().at(0);
    });
    run(1, [&] { backward(loss, Tensor::of(std::vector<float>{1})); });
    run(0, [&] { backward(seen, features.node()->grad); });
    const double queued = now();
    StepSums sums;
    sums_of_step.settle();
    for (int m = 0; m < 2; ++m) add_gradients(sums, m, stages_[m]->parameters(), 0);
    const double ready = now(), counted = static_cast<double>(batch_.packed.counted);
    const double norm = std::sqrt(sums.squared_norm[0] + sums.squared_norm[1]) / counted;
    if (sums.non_finite == 0) optimizer_->update(1e-3, 1 / counted / std::max(1.0, norm), ++updates_);
    optimizer_->zero_gradients();
    marks.push_back(mark());
    times.queue = now() - ready + queued - start;
    marks.back().synchronize();
    times.device = marks.back().since(marks.front());
    for (size_t i = 0; i + 1 < marks.size(); ++i) times.phases[i] = marks[i + 1].since(marks[i]);
    times.loss = sums.non_finite > 0 ? NAN : sums_of_step["loss"] / counted;
    return times;
  }

 private:
  static Event mark() { return Event(current_stream(), true); }
  static constexpr const char* kModules[] = {"vision", "language"};

  const Batch& batch_;
  std::vector<std::string> sums_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::vector<Parameter*> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t count_[2] = {}, updates_ = 0;
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

template <class F>
double median_of(const std::vector<Times>& all, F f) {
  std::vector<double> v;
  for (const Times& t : all) v.push_back(f(t));
  return median(v);
}

struct Result {
  std::string machine;
  int64_t parameters[2], tokens, counted, images, rows;
  std::vector<Times> steps;
  double first_loss;
  double flop, peak;  // of a step; of the device, 0: not known
  MemoryStatistics memory;
  int64_t cached;  // bytes of free blocks after the steps
  std::map<std::string, MemoryStatistics> by_module;
  std::map<std::string, LaunchProfile::Entry> ops;
  int profiled;  // steps that ops sums

  double seconds() const {
    return median_of(steps, [](const Times& t) { return t.device; });
  }
  double queue() const {
    return median_of(steps, [](const Times& t) { return t.queue; });
  }
  double phase(int i) const {
    return median_of(steps, [i](const Times& t) { return t.phases[i]; });
  }
  std::vector<std::pair<std::string, LaunchProfile::Entry>> by_time() const {
    std::vector<std::pair<std::string, LaunchProfile::Entry>> v(ops.begin(), ops.end());
    std::sort(v.begin(), v.end(), [](auto& a, auto& b) { return a.second.seconds > b.second.seconds; });
    return v;
  }
};

constexpr const char* kMfu =
    "3 x the forward's operations (products, visible pairs of attention, scan: nn/costs.h) / seconds / peak";

void print_text(const Result& r) {
  const double seconds = r.seconds(),
               fastest = std::min_element(r.steps.begin(), r.steps.end(), [](auto&a, auto&b) {
                           return a.device < b.device;
                         })->device;
  fmt::print("{}\n", r.machine);
  fmt::print("model    vision {:.1f}, language {:.1f} million parameters, bf16\n",
             double(r.parameters[0]) / 1e6, double(r.parameters[1]) / 1e6);
  fmt::print("batch    {} tokens, {} of them predicted; {} images of {} rows\n", r.tokens, r.counted,
             r.images, r.rows);
  fmt::print("loss     {:.4f} at first, {:.4f} after {} steps\n", r.first_loss, r.steps.back().loss,
             r.steps.size());
  fmt::print("step     {:.3f} ms, the median of {}; the fastest {:.3f}\n", 1e3 * seconds, r.steps.size(),
             1e3 * fastest);
  for (int i = 0; i < 5; ++i) fmt::print("         {:.3f} ms {}\n", 1e3 * r.phase(i), kPhases[i]);
  fmt::print("queueing {:.3f} ms of the host, waiting for the norm left out\n", 1e3 * r.queue());
  fmt::print("speed    {:.0f} tokens/s, {:.3g} TFLOP/s\n", double(r.tokens) / seconds,
             r.flop / seconds / 1e12);
  if (r.peak > 0)
    fmt::print("MFU      {:.1f} % of {:.0f} TFLOP/s (bf16, dense, as NVIDIA states it)\n",
               100 * r.flop / seconds / r.peak, r.peak / 1e12);
  else
    fmt::print("MFU      null: no peak is known for this device\n");
  fmt::print("         MFU = {}\n", kMfu);
  fmt::print("memory   {:.4g} GB at most:", double(r.memory.peak) / 1e9);
  for (const auto& [name, m] : r.by_module) fmt::print(" {} {:.4g}", name, double(m.peak) / 1e9);
  fmt::print("; {:.4g} GB in free blocks", double(r.cached) / 1e9);
  fmt::print("\n\n{:<44} {:>9} {:>9} {:>7} {:>9}\n", "op", "ms a step", "of step", "calls", "TFLOP/s");
  double sum = 0;
  for (const auto& [name, e] : r.by_time()) {
    const double each = e.seconds / r.profiled;
    sum += each;
    fmt::print("{:<44} {:>9.3f} {:>7.1f} % {:>7.0f} {:>9}\n", name, 1e3 * each, 100 * each / seconds,
               double(e.calls) / r.profiled,
               e.flop > 0 ? fmt::format("{:.3g}", e.flop / e.seconds / 1e12) : "");
  }
  fmt::print("{:<44} {:>9.3f} {:>7.1f} %\n", "all", 1e3 * sum, 100 * sum / seconds);
}

void print_json(const Result& r) {
  const double seconds = r.seconds();
  nlohmann::json j{{"device", r.machine},
                   {"parameters", {{"vision", r.parameters[0]}, {"language", r.parameters[1]}}},
                   {"tokens", r.tokens},
                   {"loss", {r.first_loss, r.steps.back().loss}},
                   {"step_ms", 1e3 * seconds},
                   {"queue_ms", 1e3 * r.queue()},
                   {"tokens_per_second", double(r.tokens) / seconds},
                   {"flop", r.flop},
                   {"peak_flop_per_second", nullptr},
                   {"mfu", nullptr},
                   {"mfu_is", kMfu},
                   {"peak_memory_bytes", r.memory.peak},
                   {"cached_memory_bytes", r.cached}};
  if (r.peak > 0) j["peak_flop_per_second"] = r.peak, j["mfu"] = r.flop / seconds / r.peak;
  for (int i = 0; i < 5; ++i) j["phases_ms"][kPhases[i]] = 1e3 * r.phase(i);
  for (const auto& [name, m] : r.by_module) j["memory_bytes"][name] = m.peak;
  for (const auto& [name, e] : r.by_time())
    j["ops"].push_back({{"name", name},
                        {"ms", 1e3 * e.seconds / r.profiled},
                        {"calls", double(e.calls) / r.profiled},
                        {"flop", e.flop / r.profiled}});
  fmt::print("{}\n", j.dump(1));
}

}  // namespace

// NVIDIA's data sheets, without sparsity. The more special names come first.
double stated_flop_per_second(const std::string& gpu) {
  constexpr std::pair<const char*, double> known[] = {
      {"A100", 312e12},  {"A800", 312e12}, {"H100 PCIe", 756e12}, {"H100 NVL", 835e12}, {"H200 NVL", 835e12},
      {"GH200", 989e12}, {"H100", 989e12}, {"H200", 989e12},      {"H800", 989e12},     {"B200", 2250e12}};
  for (const auto& [name, flop] : known)
    if (gpu.find(name) != std::string::npos) return flop;
  return 0;
}

int step() {
  const ModelSpec model = model_of(large());
  const Batch batch = batch_of(model, large());
  Training train(model, batch);
  Result r{};
  r.machine = fmt::format("CPU, {} threads", thread_count());
  if (on_gpu()) {
    const cuda::DeviceInfo gpu = cuda::device_info(current_stream().device.index);
    r.machine = fmt::format("{}, {} multiprocessors, driver {}", gpu.name, gpu.sms, gpu.driver);
    r.peak = stated_flop_per_second(gpu.name);
  }
  for (int m = 0; m < 2; ++m) {
    r.parameters[m] = train.parameters(m);
    r.flop += 3 * stage_flops(model, m, 0, 1, batch.sizes).forward;
  }
  r.tokens = static_cast<int64_t>(batch.packed.tokens.size()), r.counted = batch.packed.counted;
  const PackedItems& items = batch.packed.items[0];
  r.images = static_cast<int64_t>(items.cu_items.size()) - 1;
  r.rows = model[0].rows({0, 0, {{batch.sizes[0].items[0][0]}}});

  r.first_loss = train().loss;  // this one loads kernels and chooses algorithms
  train();
  reset_memory_peaks();
  for (int i = 0; i < options().steps; ++i) r.steps.push_back(train());
  r.memory = memory_total(), r.by_module = memory_statistics(), r.cached = cached_memory();
  r.profiled = std::min(2, options().steps);
  for (int i = 0; i < r.profiled; ++i) {
    const LaunchProfile profile;
    train();
    for (const auto& [key, entry] : profile.entries()) {
      LaunchProfile::Entry& e = r.ops[key.second];
      e.calls += entry.calls, e.seconds += entry.seconds, e.flop += entry.flop;
    }
  }
  options().json ? print_json(r) : print_text(r);
  const double last = r.steps.back().loss;
  if (!std::isfinite(last) || last >= r.first_loss) {
    fmt::print(stderr, "error: the loss went from {} to {}: expected a smaller one\n", r.first_loss, last);
    return 1;
  }
  return 0;
}

}  // namespace mimo::bench
