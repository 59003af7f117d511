// ./mimo plan: layout, memory, step time and schedule, without running anything.
#include <fmt/format.h>

#include "io/file.h"
#include "kernels/gemm.h"
#include "nn/costs.h"
#include "parallel/agreement.h"
#include "parallel/draw.h"
#include "parallel/verify.h"
#include "tools/commands.h"
#include "tools/trainer.h"

#include <chrono>

namespace mimo {
namespace {

// What one thread reaches in products of the size a stage runs: the plan's unit of speed.
double measured_flops() {
  const int64_t n = 192;
  const Tensor a = Tensor::zeros({n, n}, DType::f32), b = Tensor::zeros({n, n}, DType::f32),
               c = Tensor::empty({n, n}, DType::f32);
  const Gemm<float> g{false,           true, n,      n, n, 1, a.data<float>(), n, b.data<float>(), n, 0,
                      c.data<float>(), n,    nullptr};
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    launch(g);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds);
  }
  return best;
}

}  // namespace

std::string bytes_text(double bytes) {
  const char* unit = "B";
  for (const char* next : {"KB", "MB", "GB", "TB"}) {
    if (bytes < 1000) break;
    bytes /= 1000;
    unit = next;
  }
  return bytes < 10 && *unit != 'B' ? fmt::format("{:.1f} {}", bytes, unit)
                                    : fmt::format("{:.0f} {}", bytes, unit);
}

int show_plan(const CommandLine& line, World& running) {
  const int world = line.ranks > 0 ? line.ranks : running.world().size();
  Job job;
  if (!agree(running.world(), [&] {
        if (!line.svg.empty()) require_file(line.svg);
        job = make_job(line.config_file(), line.overrides, world);
      }))
    return 2;
  if (running.world().rank() != 0) return 0;
  const SampleOrder order(job.data->train.samples(),
                          static_cast<uint64_t>(job.config.get<int64_t>("train.seed")));
  const std::vector<SampleSizes> sizes = sizes_of(job.data->train, order.samples(0, job.global_batch()));
  const double flops = measured_flops();
  const PlanGraph graph = job_graph(job, sizes, false, flops);
  const Plan plan = plan_step(graph, job.waves);
  verify(plan, graph);
  const Timeline timeline = simulate(plan, graph);
  const TimeUnit ms{1000, "ms"};

  fmt::print("layout on {} ranks\n", world);
  for (size_t m = 0; m < job.model.modules.size(); ++m) {
    const ModuleSpec& spec = job.model.modules[m];
    const Grid& g = job.layout.modules[m].second;
    fmt::print("  {:10} {:16} ranks {} to {}", spec.name, to_string(g), g.offset, g.end() - 1);
    for (int s = 0; s < g.pp && g.pp > 1; ++s) {
      const auto [begin, end] = stage_layers(spec, s, g.pp);
      fmt::print("{} layers {}-{}", s == 0 ? "; stages" : ",", begin, end - 1);
    }
    fmt::print("\n");
  }
  fmt::print("\nmemory of a rank (activations: most waves in flight at once)\n");
  for (int rank = 0; rank < world; ++rank) {
    int64_t parameters = 0;
    std::string holds;
    for (size_t m = 0; m < job.model.modules.size(); ++m) {
      const Grid& g = job.layout.modules[m].second;
      if (!g.contains(rank)) continue;
      const Coord c = g.coord(rank);
      parameters += stage_memory(job.model, static_cast<int>(m), g, c.pp, {}).parameter_bytes;
      holds += fmt::format("{}{} tp{} dp{} pp{}", holds.empty() ? "" : ", ", job.model.modules[m].name, c.tp,
                           c.dp, c.pp);
    }
    fmt::print("  rank {:3}  weights, gradients, moments {:>8}  activations {:>8}  busy {:3.0f} %  {}\n",
               rank, bytes_text(static_cast<double>(parameters)), bytes_text(timeline.memory[rank]),
               timeline.makespan > 0 ? 100 * timeline.busy[rank] / timeline.makespan : 0, holds);
  }
  fmt::print(
      "\nstep of {} samples in {} waves: {:.1f} ms at {:.0f} GFLOP/s a rank (one product measured here; "
      "small ones are slower), "
      "bubbles {:.0f} %\nschedule: {}\n\n{}\n",
      job.global_batch(), job.waves, 1000 * timeline.makespan, flops / 1e9, 100 * timeline.bubbles,
      plan.choice, draw_text(plan, graph, timeline, ms));
  if (!line.svg.empty()) write_text(line.svg, draw_svg(plan, graph, timeline, ms));
  return 0;
}

}  // namespace mimo
