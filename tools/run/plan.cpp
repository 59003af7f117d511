// ./mimo plan: layout, memory, step time and schedule, without running anything.
#include <fmt/format.h>

#include "io/file.h"
#include "nn/costs.h"
#include "parallel/agreement.h"
#include "parallel/draw.h"
#include "parallel/threads.h"
#include "tools/run/commands.h"
#include "tools/run/measure.h"
#include "tools/run/planned.h"

namespace mimo {

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

namespace {

// Measured on the device that a run would use, if all ranks have it; the job's ranks are taken to share this
// machine.
MachineRates rates_here(Job& job, World& running) {
  int32_t kind = -1;
  try {
    job.device = device_of(job.config);
    kind = static_cast<int32_t>(job.device.kind);
  } catch (const ConfigError&) {
  }
  std::array<int32_t, 2> most{kind, -kind};
  running.world().all_reduce({most.data(), 2, DType::i32}, ReduceOp::max, current_stream()).wait();
  if (most[0] < 0 || most[0] != -most[1]) return assumed_rates(job.config);
  if (running.world().size() == 1) share_cores(0, job.layout.world);
  const std::unique_ptr<World> devices = open_device(job.device, running);
  return measure_rates(job, devices ? *devices : running);
}

}  // namespace

int show_plan(const CommandLine& line, World& running) {
  const int world = line.ranks > 0 ? line.ranks : running.world().size();
  Job job;
  if (!agree(running.world(), [&] {
        if (!line.svg.empty()) require_file(line.svg);
        job = make_job(line.config_file(), line.overrides, world);
      }))
    return 2;
  const MachineRates rates = rates_here(job, running);
  if (running.world().rank() != 0) return 0;
  const PlannedStep planned = planned_step(job, rates.rates, job_plan(job));
  const auto& [graph, plan, timeline, traffic] = planned;
  const TimeUnit ms{1000, "ms"};

  fmt::print("layout on {} ranks\n", world);
  for (size_t m = 0; m < job.model.modules.size(); ++m) {
    const Module& spec = *job.model.modules[m];
    const Grid& g = job.layout.modules[m].second;
    fmt::print("  {:10} {:16} {}", spec.name, to_string(g), to_string(consecutive(g.offset, g.end())));
    for (int s = 0; s < g.stages() && g.stages() > 1; ++s) {
      const auto [begin, end] = stage_layers(spec, s, g.stages());
      fmt::print("{} layers {}-{}", s == 0 ? "; stages" : ",", begin, end - 1);
    }
    fmt::print("\n");
  }
  std::vector<std::vector<int64_t>> parameter_bytes;  // by module and stage: the same on all lanes
  for (size_t m = 0; m < job.model.modules.size(); ++m) {
    const Grid& g = job.layout.modules[m].second;
    auto& stages = parameter_bytes.emplace_back();
    for (int s = 0; s < g.stages(); ++s)
      stages.push_back(stage_memory(job.model, static_cast<int>(m), g, s, {}).parameter_bytes);
  }
  fmt::print("\nmemory of a rank (activations: most waves in flight at once)\n");
  for (int rank = 0; rank < world; ++rank) {
    int64_t parameters = 0;
    std::string holds;
    for (size_t m = 0; m < job.model.modules.size(); ++m) {
      const Grid& g = job.layout.modules[m].second;
      if (!g.contains(rank)) continue;
      const Coord c = g.coord(rank);
      for (const int s : g.stages_of(rank)) parameters += parameter_bytes[m][static_cast<size_t>(s)];
      holds += fmt::format("{}{} tp{} dp{} pp{}", holds.empty() ? "" : ", ", job.model.modules[m]->name, c.tp,
                           c.dp, c.pp);
    }
    fmt::print("  rank {:3}  weights, gradients, moments {:>8}  activations {:>8}  busy {:3.0f} %  {}\n",
               rank, bytes_text(static_cast<double>(parameters)), bytes_text(timeline.memory[rank]),
               timeline.makespan > 0 ? 100 * timeline.busy[rank] / timeline.makespan : 0, holds);
  }
  const auto messages = [](const Traffic& t) {
    return fmt::format("{} of {}", t.messages, bytes_text(static_cast<double>(t.bytes)));
  };
  fmt::print(
      "\nstep of {} samples in {} waves: {}\nrates of a rank: {}\nmessages of all ranks: tensor parallel {}, "
      "between stages {}, gradients {}\nschedule: {}\n\n{}\n",
      job.global_batch(), job.waves, planned.text(), rates.text(), messages(traffic.tensor),
      messages(traffic.transfers), messages(traffic.gradients), plan.choice,
      draw_text(plan, graph, timeline, ms));
  if (!line.svg.empty()) write_text(line.svg, draw_svg(plan, graph, timeline, ms));
  return 0;
}

}  // namespace mimo
