#include "tools/run/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "parallel/gradients.h"
#include "parallel/schedule.h"
#include "parallel/step_sums.h"
#include "parallel/verify.h"
#include "tensor/cuda.h"
#include "tools/run/progress.h"

namespace mimo {
namespace {

// Tells several observers.
struct Observers : Observer {
  std::vector<Observer*> all;
  void begin(const Action& a) override {
    for (Observer* o : all) o->begin(a);
  }
  void end(const Action& a) override {
    for (Observer* o : all) o->end(a);
  }
  void started(const Action& a) override {
    for (Observer* o : all) o->started(a);
  }
  void completed(const Action& a) override {
    for (Observer* o : all) o->completed(a);
  }
};

// Every action as a span in a GPU profiler's trace.
struct Ranges : Observer {
  const PlanGraph& graph;
  explicit Ranges(const PlanGraph& g) : graph(g) {}
  void begin(const Action& a) override { cuda::begin_range(graph.describe(a)); }
  void end(const Action&) override { cuda::end_range(); }
};

// Hands over a stage's predictions when its forward is done.
struct Predictions : Observer {
  int module = 0, stage = 0;
  std::function<void(const Action&)> done;
  void end(const Action& a) override {
    if (a.kind == Action::Kind::forward && a.module == module && a.stage == stage) done(a);
  }
};

// All groups that a rank has a part in.
std::vector<Group> groups_of(const Job& job, int rank) {
  std::vector<Group> groups = {{Purpose::transfers_forward, consecutive(0, job.layout.world)},
                               {Purpose::transfers_backward, consecutive(0, job.layout.world)}};
  for (size_t m = 0; m < job.model.modules.size(); ++m) {
    const Grid& grid = job.layout.modules[m].second;
    if (!grid.contains(rank)) continue;
    if (grid.tp > 1) groups.push_back({Purpose::layers, grid.group(rank, {Axis::tp})});
    for (const int s : grid.stages_of(rank)) {
      const auto stage = describe_stage(job.model, static_cast<int>(m), grid, s, grid.coord(rank));
      for (Group& g : gradient_groups(stage->parameters())) groups.push_back(std::move(g));
    }
  }
  return groups;
}

Schedule schedule_of(const Config& c) {
  Schedule s;
  const std::string& kind = c.get<std::string>("train.schedule");
  s.kind = kind == "constant" ? Schedule::Kind::constant
           : kind == "linear" ? Schedule::Kind::linear
                              : Schedule::Kind::cosine;
  s.lr = c.get<double>("train.lr");
  s.min_lr = c.get<double>("train.min_lr");
  s.warmup = c.get<int64_t>("train.warmup");
  s.steps = c.get<int64_t>("train.steps");
  return s;
}

}  // namespace

std::atomic<bool> Trainer::stop_requested = false;

void StepClock::begin(const Action&) { since_ = Event(current_stream(), true); }

void StepClock::end(const Action& a) {
  const size_t others = seconds_.size() - 3;
  size_t index = others + 2;
  if (a.kind == Action::Kind::forward)
    index = 2 * a.module;
  else if (a.kind == Action::Kind::backward)
    index = 2 * a.module + 1;
  else if (a.kind == Action::Kind::reduce || a.kind == Action::Kind::step_reduce)
    index = others;
  else if (a.kind == Action::Kind::update)
    index = others + 1;
  spans_.push_back({index, since_, Event(current_stream(), true)});
}

const std::vector<double>& StepClock::seconds() {
  if (!spans_.empty()) spans_.back().end.synchronize();
  for (const Span& s : spans_) seconds_[s.index] += s.end.since(s.begin);
  spans_.clear();
  return seconds_;
}

void StepClock::reset() {
  spans_.clear();
  std::fill(seconds_.begin(), seconds_.end(), 0.0);
}

namespace {

// Batches of a loader, which are those that the plan asks for.
class LoaderHooks : public StepHooks {
 public:
  LoaderHooks(Loader& loader, std::function<std::vector<int64_t>(int module, int wave)> wanted)
      : loader_(loader), wanted_(std::move(wanted)) {}
  const PackedBatch& batch(int module, int wave) override {
    current_ = loader_.take();
    MIMO_CHECK(current_.samples == wanted_(module, wave), "a batch of other samples than those of module " +
                                                              std::to_string(module) + ", wave " +
                                                              std::to_string(wave));
    return current_;
  }
  const PackedBatch& current() const { return current_; }

 private:
  Loader& loader_;
  std::function<std::vector<int64_t>(int, int)> wanted_;
  PackedBatch current_;
};

}  // namespace

struct Trainer::Pass {
  PlanGraph graph;
  Plan plan;
  std::vector<Action> forwards;  // of this rank, in the order in which it asks for batches
  Executor executor;

  Pass(const Job& job, const std::vector<SampleSizes>& step, int waves, bool forward_only, int rank,
       const std::map<std::pair<int, int>, Stage*>& stages, const Groups& groups)
      : graph(job_graph(job, step, forward_only, given_rates(job.config))),
        plan(plan_step(graph, waves)),
        executor(graph, plan, edges(job), rank, stages,
                 groups.at(Purpose::transfers_forward, consecutive(0, job.layout.world)),
                 groups.at(Purpose::transfers_backward, consecutive(0, job.layout.world))) {
    verify(plan, graph);
    for (const Action& a : restrict_to(plan, rank, graph).order)
      if (a.kind == Action::Kind::forward) forwards.push_back(a);
  }
  static std::vector<EdgeSpec> edges(const Job& job) {
    std::vector<EdgeSpec> specs;
    for (const StageEdge& e : stage_edges(job.layout, module_edges(job.model, job.layout)))
      specs.push_back({e, edge_width(job.model, e), job.model.dtype,
                       [&model = job.model, e](const SampleSizes& s) { return edge_rows(model, e, s); }});
    return specs;
  }
};

Trainer::Trainer(const Job& job, World& host)
    : job_(job),
      devices_(open_device(job_.device, host)),
      world_(devices_ ? *devices_ : host),
      rank_(host.world().rank()),
      clock_(job.model.modules.size()),
      order_(job.data->train.samples(), static_cast<uint64_t>(job.config.get<int64_t>("train.seed"))) {
  const Config& c = job_.config;
  watchdog_ = std::make_unique<Watchdog>(world_, c.get<double>("run.hang_timeout"),
                                         [this](const Action& a) { return eval_->graph.describe(a); });
  watchdog_->begin("setting up the run");
  groups_ = std::make_unique<Groups>(world_, groups_of(job_, rank_));

  for (size_t m = 0; m < job_.model.modules.size(); ++m) {
    const Grid& grid = job_.layout.modules[m].second;
    if (!grid.contains(rank_)) continue;
    const MemoryLabel label(job_.model.modules[m]->name);
    Communicator* tp = grid.tp > 1 ? &groups_->at(Purpose::layers, grid.group(rank_, {Axis::tp})) : nullptr;
    for (const int s : grid.stages_of(rank_)) {
      auto stage = make_stage(job_.model, static_cast<int>(m), grid, s, grid.coord(rank_), tp);
      if (static_cast<int>(m) == job_.model.predictor() && s == grid.stages() - 1)
        last_ = static_cast<PredictingStage*>(stage.get());
      stages_[{static_cast<int>(m), s}] = std::move(stage);
    }
  }
  const std::vector<Parameter*> all = parameters();
  {
    const MemoryLabel label("optimizer");
    optimizer_ = std::make_unique<Optimizer>(
        all, AdamOptions{c.get<double>("train.beta1"), c.get<double>("train.beta2"),
                         c.get<double>("train.eps"), c.get<double>("train.weight_decay")});
  }
  eval_ = make_pass(true, job_.waves);
  if (job_.trains) {
    train_ = make_pass(false, job_.waves);
    loader_ = std::make_unique<Loader>(job_.data->train, job_.packing(),
                                       static_cast<int>(c.get<int64_t>("data.workers")));
  }
  watchdog_->end();
}

Trainer::~Trainer() = default;

std::unique_ptr<Trainer::Pass> Trainer::make_pass(bool forward_only, int waves) const {
  std::map<std::pair<int, int>, Stage*> stages;
  for (const auto& [key, stage] : stages_) stages[key] = stage.get();
  return std::make_unique<Pass>(job_, typical_sizes(job_), waves, forward_only, rank_, stages, *groups_);
}

const Plan& Trainer::plan() const { return train_->plan; }
const PlanGraph& Trainer::graph() const { return train_->graph; }

MachineRates Trainer::measure_rates() {
  MachineRates rates;
  watched("measuring the machine", [&] { rates = mimo::measure_rates(job_, world_); });
  return rates;
}

std::string Trainer::device() const {
  if (job_.device.kind == Device::Kind::cpu)
    return "cpu" +
           (job_.config.get<std::string>("device") == "auto" ? " (" + cuda::why_no_device() + ")" : "");
  const cuda::DeviceInfo info = cuda::device_info(job_.device.index);
  return to_string(job_.device) + " (" + info.name + "); " + world_.transport();
}

std::vector<Parameter*> Trainer::parameters() const {
  std::vector<Parameter*> all;
  for (const auto& [key, stage] : stages_)
    for (Parameter* p : stage->parameters()) all.push_back(p);
  return all;
}

// The samples of a wave that this rank's lane of a module owns.
std::vector<int64_t> Trainer::share(const std::vector<Wave>& waves, const std::vector<int64_t>& samples,
                                    int module, int wave) const {
  const int lane = job_.layout.modules[static_cast<size_t>(module)].second.coord(rank_).dp;
  const Wave& w = waves[static_cast<size_t>(wave)];
  std::vector<int64_t> out;
  for (int i : owned(w, module, lane))
    out.push_back(samples[static_cast<size_t>(w.samples[static_cast<size_t>(i)])]);
  return out;
}

// Asks for the batches of a step in the order in which the plan will use them.
void Trainer::submit(Loader& loader, const Pass& pass, const std::vector<Wave>& waves,
                     const std::vector<int64_t>& samples) const {
  for (const Action& a : pass.forwards) {
    Loader::Request r;
    r.samples = share(waves, samples, a.module, a.wave);
    r.wants.assign(job_.preprocessing.size(), false);
    if (const auto reader = job_.model[a.module].items(); reader && a.stage == 0)
      r.wants[static_cast<size_t>(reader->modality)] = true;
    loader.submit(std::move(r));
  }
}

void Trainer::prefetch() {
  const int64_t batch = job_.global_batch(), ahead = done_ + job_.config.get<int64_t>("data.prefetch");
  const std::vector<Wave> waves = deal(batch, job_.waves, job_.layout);
  for (requested_ = std::max(requested_, done_);
       requested_ <= ahead && requested_ < job_.config.get<int64_t>("train.steps"); ++requested_)
    submit(*loader_, *train_, waves, order_.samples(position_ + (requested_ - done_) * batch, batch));
}

// What a training step does where its plan says so.
struct Trainer::StepInHand : LoaderHooks {
  Trainer& trainer;
  const std::function<void()>& before_update;
  StepResult result;
  StepSums sums;

  StepInHand(Trainer& t, std::function<std::vector<int64_t>(int, int)> wanted,
             const std::function<void()>& before)
      : LoaderHooks(*t.loader_, std::move(wanted)), trainer(t), before_update(before) {
    sums.squared_norm.assign(t.job_.model.modules.size(), 0);
  }
  double divisor() const { return static_cast<double>(std::max<int64_t>(result.counted, 1)); }

  Work reduce(int module, int stage, int bucket) override {
    Stage& s = *trainer.stages_.at({module, stage});
    const std::vector<Bucket>& buckets = trainer.train_->graph.buckets(module, stage);
    const int begin = buckets[static_cast<size_t>(bucket)].part,
              end = bucket > 0 ? buckets[static_cast<size_t>(bucket) - 1].part : s.parts().second;
    std::vector<Parameter*> list;
    for (int part = begin; part < end; ++part)
      for (Parameter* p : s.parameters_of(part)) list.push_back(p);
    return reduce_gradients(list, *trainer.groups_);
  }
  void step_reduce(Sums& mine) override {
    sums.sums = mine;
    sums.stop = stop_requested;
    for (const auto& [key, stage] : trainer.stages_)
      add_gradients(sums, key.first, stage->parameters(), trainer.rank_);
    reduce_step(sums, trainer.world_.world());
    mine = sums.sums;
  }
  void update() override {
    if (before_update) before_update();
    double square = 0;
    for (double s : sums.squared_norm) square += s;
    result.grad_norm = sums.non_finite > 0 ? NAN : std::sqrt(square) / divisor();
    if (!std::isfinite(sums.sums["loss"])) result.not_finite = "the loss";
    if (sums.non_finite > 0)
      result.not_finite += (result.not_finite.empty() ? "" : " and ") +
                           std::to_string(static_cast<int64_t>(sums.non_finite)) + " elements of gradients";
    if (result.not_finite.empty()) {
      const double clip = trainer.job_.config.get<double>("train.clip");
      const double factor = clip > 0 && result.grad_norm > clip ? clip / (result.grad_norm + 1e-6) : 1;
      trainer.optimizer_->update(result.lr, factor / divisor(), ++trainer.updates_);
    }
    trainer.optimizer_->zero_gradients();
  }
};

StepResult Trainer::step(const std::function<void()>& before_update) {
  MIMO_CHECK(job_.trains, "a step of a job that trains nothing");
  const int64_t batch = job_.global_batch();
  prefetch();
  const std::vector<int64_t> samples = order_.samples(position_, batch);
  const std::vector<SampleSizes> sizes = sizes_of(job_.data->train, samples);
  const std::vector<Wave> waves = deal(batch, job_.waves, job_.layout);
  StepInHand step(
      *this, [&](int module, int wave) { return share(waves, samples, module, wave); }, before_update);
  StepResult& result = step.result;
  for (const SampleSizes& s : sizes) result.tokens += s.tokens, result.counted += s.counted;
  result.lr = learning_rate(schedule_of(job_.config), done_);
  Observers observers;
  Ranges ranges(train_->graph);
  observers.all = {watchdog_.get(), &clock_};
  if (job_.device.kind == Device::Kind::cuda) observers.all.push_back(&ranges);
  observers.all.insert(observers.all.end(), observers_.begin(), observers_.end());
  Sums sums(job_.model.sums());
  train_->executor.step(waves, sizes, sums, step, observers);
  if (result.counted > 0) result.loss = sums["loss"] / step.divisor();
  result.stop = step.sums.stop;
  result.step = ++done_;
  position_ += batch;
  return result;
}

Evaluation Trainer::evaluate(int64_t first, int64_t end) {
  const Split& split = job_.data->heldout;
  const int64_t n = end - first, batch = job_.global_batch();
  const auto all = static_cast<size_t>(n);
  Evaluation e;
  e.task = job_.task;
  e.kinds = job_.data->header.kinds;
  e.headline = std::clamp<int64_t>(split.headline() - first, 0, n);
  e.judged.resize(all);
  e.right.assign(all, false);
  e.readings.resize(all);
  // Score and whether it is right, by sample; loss; counted. Each comes from one rank.
  std::vector<double> sums(2 * all + 2, 0.0);
  Loader loader(split, job_.packing(), 0);
  const int predictor = job_.model.predictor();
  const Grid& grid = job_.layout.modules[static_cast<size_t>(predictor)].second;
  const bool counts = last_ && grid.coord(rank_).tp == 0;
  for (int64_t begin = 0; begin < n; begin += batch) {
    const int64_t count = std::min(batch, n - begin);
    std::vector<int64_t> ids(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = first + begin + i;
    const std::vector<SampleSizes> sizes = sizes_of(split, ids);
    const std::vector<Wave> waves = deal(count, job_.waves, job_.layout);
    submit(loader, *eval_, waves, ids);
    LoaderHooks hooks(loader, [&](int module, int wave) { return share(waves, ids, module, wave); });
    const PackedBatch& current = hooks.current();
    Predictions predictions;
    predictions.module = predictor;
    predictions.stage = grid.stages() - 1;
    predictions.done = [&](const Action&) {
      if (!counts) return;
      std::vector<Reading> readings(current.samples.size());
      for (const Prediction& p : last_->predictions()) {
        Reading& r = readings[static_cast<size_t>(p.sample)];
        r.labels.push_back(p.label);
        r.predicted.push_back(p.argmax);
        r.loss += p.loss;
      }
      for (size_t i = 0; i < readings.size(); ++i) {
        const auto at = static_cast<size_t>(current.samples[i] - first);
        sums[at] = e.task->score(readings[i]);
        sums[all + at] = readings[i].right();
        e.readings[at] = std::move(readings[i].predicted);
      }
    };
    Observers observers;
    observers.all = {&predictions, watchdog_.get()};  // reading predictions waits for other ranks' messages
    Sums mine(job_.model.sums());
    eval_->executor.step(waves, sizes, mine, hooks, observers);
    sums[2 * all] += mine["loss"];
    if (rank_ == 0)
      for (const SampleSizes& s : sizes) sums[2 * all + 1] += s.counted;
  }
  all_reduce(Buffer(sums.data(), static_cast<int64_t>(sums.size()), DType::f64), ReduceOp::sum,
             "the sum of an evaluation");

  e.loss_sum = sums[2 * all];
  e.counted = sums[2 * all + 1];
  for (size_t i = 0; i < all; ++i) {
    const int64_t id = first + static_cast<int64_t>(i);
    e.judged[i] = {sums[i], split.counted(id), split.kind(id), split.length(id)};
    e.right[i] = sums[all + i] > 0;
  }
  return e;
}

std::vector<ShardedTensor> Trainer::tensors() {
  std::vector<ShardedTensor> out;
  for (Parameter* p : parameters()) out.push_back(sharded_value(*p, rank_));
  for (ShardedTensor& t : optimizer_->tensors(rank_)) out.push_back(std::move(t));
  return out;
}

void Trainer::watched(const std::string& what, const std::function<void()>& f) {
  watchdog_->begin(what);
  try {
    f();
  } catch (...) {
    watchdog_->end();
    throw;
  }
  watchdog_->end();
}

void Trainer::all_reduce(Buffer buffer, ReduceOp op, const std::string& what) {
  watched(what, [&] { world_.world().all_reduce(buffer, op, current_stream()).wait(); });
}

// The same tensors on the host, where io reads and writes them.
std::vector<ShardedTensor> on_host(std::vector<ShardedTensor> tensors, bool with_values) {
  for (ShardedTensor& t : tensors)
    t.tensor = with_values ? to_device(t.tensor, Device{})
                           : Tensor::empty(t.tensor.shape(), t.tensor.dtype(), Device{});
  return tensors;
}

void Trainer::save() {
  TrainingState state;
  state.step = done_;
  state.scalars["position"] = position_;
  state.scalars["updates"] = updates_;
  state.scalars["config"] = job_.config.to_toml();
  state.scalars["dataset"] = job_.data->digest;
  state.scalars["layout"] = to_string(job_.layout);
  watched("saving a checkpoint", [&] {
    save_checkpoint(world_.world(), job_.run_dir / "checkpoints", state, on_host(tensors(), true),
                    job_.config.get<int64_t>("checkpoint.keep"));
  });
}

std::string Trainer::non_finite_state() {
  std::string bad;
  watched("looking for what is not finite",
          [&] { bad = non_finite(world_.world(), on_host(tensors(), true)); });
  return bad;
}

int64_t Trainer::load(const std::filesystem::path& checkpoint) {
  const bool on_device = job_.device.kind == Device::Kind::cuda;
  TrainingState state;
  // Where other parameters may be frozen than before: one trained from here on begins with moments of zero
  // (which take the first 1 / (1 - beta2) updates to fill: bias is corrected for the run's updates, not its
  // own); one frozen from here on leaves its own behind. Who trains nothing leaves them all.
  const auto& allowed = job_.config.get<std::vector<std::string>>("resume.allow");
  const bool thawed = std::any_of(allowed.begin(), allowed.end(), [](const std::string& key) {
    return key == "train.freeze" || key == "train.unfreeze";
  });
  const auto optional = [&](const std::string& name) {
    return (thawed || !job_.trains) && !name.ends_with("/value");
  };
  std::set<std::string> lacking;
  watched("reading the checkpoint " + checkpoint.string(), [&] {
    const std::vector<ShardedTensor> here = tensors(), host = on_device ? on_host(here, false) : here;
    state = load_checkpoint(world_.world(), checkpoint, host, optional, &lacking);
    for (size_t i = 0; on_device && i < here.size(); ++i)
      if (!lacking.contains(here[i].name)) copy_across(here[i].tensor, host[i].tensor);
  });
  optimizer_->restart(lacking);
  const auto count = [&](const std::string& name) {
    const auto found = state.scalars.find(name);
    const int64_t* n = found == state.scalars.end() ? nullptr : std::get_if<int64_t>(&found->second);
    if (!n)
      throw ConfigError(checkpoint.string(),
                        "not a checkpoint of training: expected a whole number \"" + name + "\", found none");
    return *n;
  };
  position_ = count("position");
  updates_ = count("updates");
  return done_ = state.step;
}

int32_t Trainer::next_token(const Sample& prompt) {
  Sample s = prompt;
  s.counted.assign(s.tokens.size(), 0);
  s.tokens.push_back(0);  // the label of the place asked about: any
  s.counted.push_back(1);
  struct Alone : StepHooks {
    PackedBatch packed;
    const PackedBatch& batch(int, int) override { return packed; }
  } hooks;
  hooks.packed = pack({s}, job_.packing(), std::vector<bool>(job_.preprocessing.size(), true));
  const std::vector<SampleSizes> sizes{sizes_of(s, job_.preprocessing)};
  if (!read_) read_ = make_pass(true, 1);
  Observer none;
  Sums sums(job_.model.sums());
  read_->executor.step(deal(1, 1, job_.layout), sizes, sums, hooks, none);
  return last_->predictions().back().argmax;
}

}  // namespace mimo
