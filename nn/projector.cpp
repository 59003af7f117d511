#include "nn/projector.h"

#include "nn/ops.h"

namespace mimo {

Fields<ProjectorOptions> projector_fields(const std::string& kind, const std::string& ffn) {
  Fields<ProjectorOptions> f;
  f.add(kind, &ProjectorOptions::kind,
        "mlp: norm, linear, relu2, linear; affine: one linear layer; none: features as they are")
      .one_of({"mlp", "affine", "none"});
  f.add(ffn, &ProjectorOptions::ffn, "inner width of the mlp projector").range(1, 1 << 20);
  return f;
}

Projector::Projector(ParameterSet& set, const std::string& prefix, const ProjectorOptions& o, int64_t in,
                     int64_t out)
    : mlp_(o.kind == "mlp"), none_(o.kind == "none") {
  if (mlp_) {
    norm_ = &set.make(prefix + ".norm.weight", {in}, kReplicated, constant(1));
    up_ = column_linear(set, prefix + ".linear1", in, o.ffn, false);
    down_ = row_linear(set, prefix + ".linear2", o.ffn, out, false);
  } else if (!none_) {
    up_ = replicated_linear(set, prefix, in, out, false);
  }
}

Tensor Projector::operator()(const Tensor& x) const {
  if (none_) return x;
  if (!mlp_) return up_(x);
  return down_(activation(up_(rms_norm(x, *norm_, 1e-5)), ActivationKind::relu2));
}

PartCost projector_cost(const ProjectorOptions& o, int64_t in, int64_t out, int64_t rows, int tp,
                        DType dtype) {
  PartCost c;
  if (o.kind == "none") return c;
  const double n = static_cast<double>(rows), d = static_cast<double>(in), y = static_cast<double>(out),
               f = static_cast<double>(o.ffn);
  if (o.kind == "affine") {
    c.flops = 2 * n * d * y;
    c.kept = n * d;  // its input
    return c;
  }
  c.flops = 2 * n * f * (d + y);
  c.kept = n * (2 * d + 2 * f / tp);  // its input, the norm's result, before and after the activation
  c.forward.add(rows * out * size_of(dtype));
  c.backward.add(rows * in * size_of(dtype));
  return c;
}

}  // namespace mimo
