#include "tools/run/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>

#include "data/loader.h"
#include "nn/costs.h"
#include "parallel/route.h"
#include "tools/run/planned.h"

namespace mimo {
namespace {

constexpr const char* kKeys[] = {"machine.flops", "machine.memory", "machine.latency", "machine.bandwidth"};
constexpr std::array<double Rates::*, 4> kFields = {&Rates::flops, &Rates::memory, &Rates::latency,
                                                    &Rates::bandwidth};
constexpr int64_t kMostParameters = int64_t{1} << 24;  // of a layer: it is made in a part of a second
constexpr double kEnough = 3e-3;                       // seconds that one measurement takes

// Of `calls` calls, fewer after kEnough seconds, and after one more that makes room for their results.
std::vector<double> seconds_of(const std::function<void()>& f, int calls = 100, double enough = kEnough) {
  f();
  std::vector<double> each;
  for (double sum = 0; sum < enough && static_cast<int>(each.size()) < calls; sum += each.back()) {
    const Event begin(current_stream(), true);
    f();
    const Event end(current_stream(), true);
    end.synchronize();
    each.push_back(end.since(begin));
  }
  return each;
}

double mean(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

// Where another process takes a turn, one call among few lasts a hundred times as long.
double median(std::vector<double> v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

struct Trial {
  double operations = 0, seconds = 0;
};

Tensor ones(const Dims& shape, DType dtype) {
  const Tensor t = Tensor::empty(shape, dtype);
  fill(t, 1);
  return t;
}

// A layer as a stage of its own; its neighbours' outputs are made up.
Trial measured_layer(const Job& job, int module, int layer, const Layout& by_layer,
                     const std::vector<SampleSizes>& sizes, const PackedBatch& batch) {
  const Grid& grid = by_layer.modules[static_cast<size_t>(module)].second;
  const auto stage = make_stage(job.model, module, grid, layer, {}, nullptr);
  bool backward = false;
  Trial w;
  // The mean: with more ranks than cores turns are part of it.
  w.seconds = mean(seconds_of([&] {
    std::map<int, Tensor> ports;
    for (const StageEdge& e : stage_edges(by_layer, module_edges(job.model, by_layer))) {
      if (e.dst_module != module || e.dst_stage != layer) continue;
      int64_t rows = 0;
      for (const SampleSizes& s : sizes) rows += edge_rows(job.model, e, s);
      const Tensor x = ones({rows, edge_width(job.model, e)}, job.model.dtype);
      const int part = e.dst_port < 0 ? stage_parts(job.model[module], layer, grid.stages()).begin
                                      : job.model[module].inputs()[static_cast<size_t>(e.dst_port)].part;
      const auto& back = job.model.backward[static_cast<size_t>(module)][static_cast<size_t>(part)];
      ports[e.dst_port] = back.input ? leaf(x) : x;
    }
    std::vector<Tensor> inputs;
    for (const auto& [port, x] : ports) inputs.push_back(x);
    Sums sums(job.model.sums());
    Step step(sums);
    std::vector<Tensor> roots = stage->forward(inputs, batch, step), gradients;
    roots.insert(roots.end(), step.losses().begin(), step.losses().end());
    backward = std::any_of(roots.begin(), roots.end(), [](const Tensor& y) { return y.node() != nullptr; });
    for (const Tensor& y : roots) gradients.push_back(ones(y.shape(), y.dtype()));
    if (backward) mimo::backward(roots, gradients);
  }));
  const StageFlops flops = stage_flops(job.model, module, layer, grid.stages(), sizes);
  w.operations = (flops.forward + (backward ? flops.backward : 0)) / grid.tp;
  return w;
}

// Of the modules that `rank` has a part of, or all where the job is another number of ranks'.
Trial measured_layers(const Job& job, Communicator& world) {
  const SampleOrder order(job.data->train.samples(),
                          static_cast<uint64_t>(job.config.get<int64_t>("train.seed")));
  const std::vector<int64_t> step = order.samples(0, job.global_batch());
  const Wave wave = deal(job.global_batch(), job.waves, job.layout).front();
  const bool on_device = current_stream().device.kind != Device::Kind::cpu;
  Layout by_layer = job.layout;
  for (size_t m = 0; m < job.model.modules.size(); ++m) {
    Grid& g = by_layer.modules[m].second;
    g = {.tp = g.tp, .pp = job.model.modules[m]->layers()};
  }
  Trial sum;
  for (int m = 0; m < job.model.size(); ++m) {
    const Module& module = job.model[m];
    const Grid& grid = job.layout.modules[static_cast<size_t>(m)].second;
    const bool running = job.layout.world == world.size();
    if (running && !grid.contains(world.rank())) continue;
    // Not more of the wave than a layer gets through in some hundredths of a second.
    std::vector<int64_t> samples;
    std::vector<SampleSizes> sizes;
    for (int i : owned(wave, m, running ? grid.coord(world.rank()).dp : 0)) {
      samples.push_back(step[static_cast<size_t>(wave.samples[static_cast<size_t>(i)])]);
      sizes.push_back(job.data->train.sizes(samples.back()));
      if (stage_flops(job.model, m, 0, 1, sizes).forward / module.layers() / grid.tp >
          (on_device ? 1e12 : 1e9))
        break;
    }
    std::vector<bool> pixels(job.preprocessing.size(), true);
    const PackedBatch batch = pack(job.data->train, job.packing(), samples, pixels);
    std::map<std::tuple<std::string, bool, bool>, Trial> seen;  // by type of layer, first, last
    for (int i = 0; i < module.layers(); ++i) {
      const auto [layer, added] = seen.try_emplace({module.layer_type(i), i == 0, i + 1 == module.layers()});
      if (added && !samples.empty() &&
          parameter_count(job.model, m, by_layer.modules[static_cast<size_t>(m)].second, i, {}) <=
              kMostParameters)
        layer->second = measured_layer(job, m, i, by_layer, sizes, batch);
      sum.operations += layer->second.operations;
      sum.seconds += layer->second.seconds;
    }
  }
  return sum;
}

double seconds_of_copied_byte() {
  const Tensor from = ones({int64_t{1} << 20}, DType::f32), to = ones({int64_t{1} << 20}, DType::f32);
  return median(seconds_of([&] { copy_into(to, from); })) / static_cast<double>(8 << 20);
}

// Every rank sends to the next and receives from the one before, as often as all the others.
double seconds_of_round(Communicator& world, int64_t bytes, int rounds) {
  const int n = world.size(), rank = world.rank();
  const Tensor out = Tensor::zeros({bytes}, DType::u8), in = Tensor::zeros({bytes}, DType::u8);
  const std::array<P2P, 2> messages{P2P{false, (rank + n - 1) % n, in}, P2P{true, (rank + 1) % n, out}};
  constexpr double kForever = std::numeric_limits<double>::infinity();
  return median(seconds_of([&] { world.exchange(messages, current_stream()).wait(); }, rounds, kForever));
}

}  // namespace

MachineRates assumed_rates(const Config& c) {
  MachineRates m;
  for (size_t i = 0; i < kFields.size(); ++i) {
    const double given = c.get<double>(kKeys[i]);
    if (given > 0) m.rates.*kFields[i] = given;
    m.origin[i] = given > 0 ? "given" : "assumed";
  }
  return m;
}

Rates given_rates(const Config& c) { return assumed_rates(c).rates; }

MachineRates measure_rates(const Job& job, World& host) {
  MachineRates m = assumed_rates(job.config);
  Communicator& world = host.world();
  const auto wanted = [&](int i) { return m.origin[static_cast<size_t>(i)] == "assumed"; };
  const auto measured = [&](int i, double rate) {
    m.rates.*kFields[static_cast<size_t>(i)] = rate;
    m.origin[static_cast<size_t>(i)] = "measured";
  };
  const auto agreed = [&](std::vector<double> v, ReduceOp op) {
    world.all_reduce({v.data(), static_cast<int64_t>(v.size()), DType::f64}, op, current_stream()).wait();
    return v;
  };
  if (wanted(0)) {
    world.barrier();
    const Trial mine = measured_layers(job, world);
    const std::vector<double> all = agreed({mine.operations, mine.seconds}, ReduceOp::sum);
    if (all[0] > 0 && all[1] > 0) measured(0, all[0] / all[1]);
  }
  if (wanted(1)) measured(1, 1 / agreed({seconds_of_copied_byte()}, ReduceOp::max)[0]);
  if (world.size() > 1 && (wanted(2) || wanted(3))) {
    constexpr int64_t kLong = 1 << 18;
    const double brief = seconds_of_round(world, 8, 21), full = seconds_of_round(world, kLong, 9);
    const std::vector<double> worst = agreed({brief, full}, ReduceOp::max);
    if (wanted(2)) measured(2, worst[0]);
    // At least half of the time of a long message is its bytes', whatever the noise.
    if (wanted(3)) measured(3, static_cast<double>(kLong) / std::max(worst[1] - worst[0], worst[1] / 2));
  }
  return m;
}

std::string MachineRates::text() const {
  const std::array<std::string, 4> figures = {
      fmt::format("{:.1f} GFLOP/s in the job's layers", rates.flops / 1e9),
      fmt::format("{:.1f} GB/s of memory", rates.memory / 1e9),
      fmt::format("{:.1f} us a round of messages", rates.latency * 1e6),
      fmt::format("{:.2f} GB/s between ranks", rates.bandwidth / 1e9)};
  std::string s;
  for (size_t i = 0; i < figures.size(); ++i) {
    const bool last = i + 1 == figures.size() || origin[i] != origin[i + 1];
    s += figures[i] + (last ? " (" + origin[i] + ")" : "");
    if (i + 1 < figures.size()) s += last ? "; " : ", ";
  }
  return s;
}

}  // namespace mimo
