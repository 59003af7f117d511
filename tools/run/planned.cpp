#include "tools/run/planned.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/loader.h"
#include "nn/costs.h"
#include "parallel/spread.h"
#include "parallel/verify.h"
#include "tools/run/measure.h"

namespace mimo {
namespace {

double real(int64_t n) { return static_cast<double>(n); }

// The messages of a route from one block of ranks, which all have its rows, to another.
struct Crossing {
  Traffic sent;         // by all of them
  int64_t busiest = 0;  // bytes of the rank that sends most
};
Crossing crossing(const Route& r, const Ranks& from, const Ranks& to, int64_t bytes_of_row) {
  Crossing c;
  std::map<int, int64_t> bytes;
  for (const Piece& p : pieces(r, from, one_part(r.src_begin + r.rows), to, one_part(r.dst_begin + r.rows))) {
    if (p.src == p.dst) continue;
    c.sent.add(p.rows * bytes_of_row);
    c.busiest = std::max(c.busiest, bytes[p.src] += p.rows * bytes_of_row);
  }
  return c;
}

// The samples of every lane of a module in every wave.
std::vector<std::vector<SampleSizes>> shares_of(const std::vector<Wave>& waves, int module, int lanes,
                                                const std::vector<SampleSizes>& step) {
  std::vector<std::vector<SampleSizes>> shares(waves.size() * static_cast<size_t>(lanes));
  for (size_t w = 0; w < waves.size(); ++w)
    for (size_t i = 0; i < waves[w].samples.size(); ++i) {
      const size_t lane = static_cast<size_t>(waves[w].lane[static_cast<size_t>(module)][i]);
      shares[w * static_cast<size_t>(lanes) + lane].push_back(step[static_cast<size_t>(waves[w].samples[i])]);
    }
  return shares;
}

// What a step costs, and the messages that it was made of.
struct JobCosts {
  Costs costs;
  StepTraffic traffic;
};

JobCosts job_costs(const Job& job, const std::vector<SampleSizes>& step, const Rates& rates) {
  JobCosts out;
  Costs& costs = out.costs;
  const std::vector<Wave> waves = deal(static_cast<int64_t>(step.size()), job.waves, job.layout);
  const int64_t acc = size_of(acc_of(job.model.dtype)), value = size_of(job.model.dtype);
  std::vector<double> update(static_cast<size_t>(job.layout.world), 0), norm = update;  // bytes, by rank
  for (int m = 0; m < job.model.size(); ++m) {
    const Grid& g = job.layout.modules[static_cast<size_t>(m)].second;
    // A stage costs the mean of its lanes and waves.
    const std::vector<std::vector<SampleSizes>> shares = shares_of(waves, m, g.dp, step);
    const double count = real(static_cast<int64_t>(shares.size()));
    std::vector<StageCost> stages;
    for (int s = 0; s < g.stages(); ++s) {
      const StageFlops flops = stage_flops(job.model, m, s, g.stages(), step);
      const double seconds_of_flop = 1 / (count * g.tp * rates.flops);
      TensorTraffic tensor;
      for (const std::vector<SampleSizes>& share : shares) {
        const TensorTraffic t = tensor_traffic(job.model, m, g, s, share);
        tensor.forward += t.forward;
        tensor.backward += t.backward;
      }
      const StageMemory memory = stage_memory(job.model, m, g, s, step);
      StageCost cost;
      cost.forward =
          flops.forward * seconds_of_flop + all_reduce_seconds(tensor.forward, g.tp, rates) / count;
      cost.backward =
          flops.backward * seconds_of_flop + all_reduce_seconds(tensor.backward, g.tp, rates) / count;
      cost.memory = real(memory.activation_bytes) / count;
      cost.buckets.clear();
      for (const GradientBucket& b : gradient_buckets(job.model, m, g, s, {.tp = g.tp - 1}, step))
        cost.buckets.push_back(
            {// Gradients are copied to a message and back.
             .reduce = all_reduce_seconds(b.traffic, g.dp, rates) + 4 * real(b.traffic.bytes) / rates.memory,
             .ready = b.ready,
             .part = b.parts.begin});
      cost.trainable = memory.trainable > 0;
      stages.push_back(cost);

      Traffic all = tensor.forward;
      all += tensor.backward;
      for (int i = 0; i < g.tp; ++i) {
        out.traffic.tensor += all;
        for (const GradientBucket& b : gradient_buckets(job.model, m, g, s, {.tp = i}, step))
          for (int lane = 0; lane < g.dp; ++lane) out.traffic.gradients += b.traffic;
      }
      // AdamW reads weight, gradient and both moments and writes all but the gradient, which then becomes 0.
      for (int lane = 0; lane < g.dp; ++lane)
        for (int rank : g.block(lane, s)) {
          update[static_cast<size_t>(rank)] +=
              real(memory.trainable) * real(8 * acc + (value == acc ? 0 : value));
          norm[static_cast<size_t>(rank)] += real(memory.trainable) * real(acc);
        }
    }
    costs.stages.push_back(stages);
  }
  costs.update = *std::max_element(update.begin(), update.end()) / rates.memory;
  Traffic sums;
  sums.add(8 *
           static_cast<int64_t>(job.model.sums().size() + 2 + job.model.modules.size()));  // see reduce_step
  costs.step_reduce = *std::max_element(norm.begin(), norm.end()) / rates.memory +
                      all_reduce_seconds(sums, job.layout.world, rates);

  // A transfer costs the mean of all that cross its edge.
  for (const StageEdge& e : stage_edges(job.layout, module_edges(job.model, job.layout))) {
    const Grid &src = job.layout.modules[static_cast<size_t>(e.src_module)].second,
               &dst = job.layout.modules[static_cast<size_t>(e.dst_module)].second;
    const int64_t width = edge_width(job.model, e) * value;
    const int sent = e.src_port < 0 ? stage_parts(job.model[e.src_module], e.src_stage, src.stages()).end - 1
                                    : job.model[e.src_module].outputs()[static_cast<size_t>(e.src_port)].part;
    const bool returns =
        job.model.backward[static_cast<size_t>(e.src_module)][static_cast<size_t>(sent)].any();
    TransferCost seconds;
    const auto taken = [&](const Crossing& c) {
      return c.busiest > 0 ? rates.latency + real(c.busiest) / rates.bandwidth : 0;
    };
    for (const Wave& wave : waves)
      for (const Route& r : route(wave, e.src_module, e.dst_module,
                                  [&](int64_t i) { return edge_rows(job.model, e, step[i]); })) {
        const Ranks from = src.block(r.src_lane, e.src_stage), to = dst.block(r.dst_lane, e.dst_stage);
        const Crossing there = crossing(r, from, to, width), back = crossing(reversed(r), to, from, width);
        out.traffic.transfers += there.sent;
        if (returns) out.traffic.transfers += back.sent;
        seconds.forward += taken(there);
        seconds.backward += taken(back);
      }
    const double pairs = real(static_cast<int64_t>(lane_pairs(src.dp, dst.dp).size()));
    const double of_one = 1 / (job.waves * pairs);
    costs.transfer.push_back({seconds.forward * of_one, seconds.backward * of_one});
  }
  return out;
}

}  // namespace

PlanGraph job_graph(const Job& job, const std::vector<SampleSizes>& step, bool forward_only,
                    const Rates& rates) {
  return step_graph(job.layout, module_edges(job.model, job.layout), job_costs(job, step, rates).costs,
                    forward_only);
}

std::vector<SampleSizes> typical_sizes(const Job& job) {
  const SampleOrder order(job.data->train.samples(),
                          static_cast<uint64_t>(job.config.get<int64_t>("train.seed")));
  return sizes_of(job.data->train, order.samples(0, job.global_batch()));
}

Plan job_plan(const Job& job) {
  return plan_step(job_graph(job, typical_sizes(job), false, given_rates(job.config)), job.waves);
}

PlannedStep planned_step(const Job& job, const Rates& rates, Plan plan) {
  const JobCosts costs = job_costs(job, typical_sizes(job), rates);
  PlannedStep p{step_graph(job.layout, module_edges(job.model, job.layout), costs.costs),
                std::move(plan),
                {},
                costs.traffic};
  verify(p.plan, p.graph);
  p.timeline = simulate(p.plan, p.graph);
  return p;
}

std::string PlannedStep::text() const {
  return fmt::format("{:.2f} ms, bubbles {:.0f} %", 1000 * timeline.makespan, 100 * timeline.bubbles);
}

}  // namespace mimo
