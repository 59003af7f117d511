// A projector as a module of its own, on ranks of its own: between an encoder whose projector is "none" and
// the language model.
#include "nn/projector.h"
#include "nn/layered_stage.h"

namespace mimo {
namespace {

const Fields<ProjectorOptions>& fields() {
  static const Fields<ProjectorOptions> all = projector_fields("type", "ffn");
  return all;
}

class ProjectorStage : public LayeredStage {
 public:
  ProjectorStage(const ProjectorOptions& o, const ModuleContext& context, int64_t in, int64_t out)
      : LayeredStage(context) {
    set_.begin_part(1);
    project_ = Projector(set_, "projector", o, in, out);
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs, const PackedBatch&, Step& step) override {
    return {run_part(1, inputs[0], step, [this](const Tensor& x) { return project_(x); })};
  }

 private:
  Projector project_;
};

class ProjectorModule : public Module {
 public:
  explicit ProjectorModule(const ProjectorOptions& o) : o_(o) {
    inputs_ = {{.name = "features", .part = 0}};
    outputs_ = {{.name = "features", .part = 2}};
  }
  int layers() const override { return 1; }
  int64_t width() const override { return in(); }
  int64_t rows(const SampleSizes& s) const override { return inputs_[0].flow.rows(s); }
  int modality() const override { return inputs_[0].flow.modality; }
  Flow flow(int) const override {
    return {.width = out(), .modality = modality(), .rows = inputs_[0].flow.rows};
  }
  void check(int tp) const override {
    if (o_.kind == "mlp") check_divides(name, "ffn", o_.ffn, tp);
  }
  PartCost cost(int part, const std::vector<SampleSizes>& samples, int tp, DType dtype) const override {
    if (part != 1) return {};
    int64_t n = 0;
    for (const SampleSizes& s : samples) n += rows(s);
    return projector_cost(o_, in(), out(), n, tp, dtype);
  }
  std::unique_ptr<Stage> make_stage(const ModuleContext& context) const override {
    return std::make_unique<ProjectorStage>(o_, context, in(), out());
  }

 private:
  int64_t in() const { return inputs_[0].flow.width; }
  int64_t out() const { return outputs_[0].width; }
  ProjectorOptions o_;
};

const Registry<ModuleKind>::Entry entry{
    {.name = "projector",
     .help = "projector on ranks of its own, between an encoder and the language model",
     .declare = [](Keys& keys) { fields().declare(keys); },
     .read = [](const Config::Section& s, const DataSpec&) -> std::unique_ptr<Module> {
       return std::make_unique<ProjectorModule>(fields().read(s));
     }}};

}  // namespace
}  // namespace mimo
