// S: Mamba-1, a selective scan by channels.
//   x|z = W_in u;  v = silu(conv(x));  dt|B|C = W_x v;  h += W_out scan(v, W_dt dt, -exp(A_log), B, C, D),
//   gated by z
// Source: Gu, Dao, Mamba, 2023 (arXiv 2312.00752).
#include <cmath>

#include "io/fields.h"
#include "nn/linear.h"
#include "nn/mixer.h"
#include "parallel/collectives.h"

namespace mimo {
namespace {

struct Options {
  int inner = 256, state = 16, dt_rank = 8;
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("scan_inner", &Options::inner, "Mamba-1: channels").range(1, 1 << 20);
    f.add("scan_state", &Options::state, "Mamba-1: state of a channel").range(1, 1024);
    f.add("scan_dt_rank", &Options::dt_rank, "Mamba-1: rank of the time step projection").range(1, 1 << 16);
    return f;
  }();
  return all;
}

class Mamba1 : public Mixer {
 public:
  Mamba1(ParameterSet& set, const std::string& prefix, const Options& o, const HybridStream& stream)
      : inner_(o.inner / set.tp()), state_(o.state), dt_rank_(o.dt_rank), group_(set.group()) {
    const int64_t inner = o.inner;
    const double bound = 1 / std::sqrt(static_cast<double>(stream.conv_width));
    const Initializer uniform{Distribution::uniform, -bound, bound};
    using P = ParameterSet::Precision;
    in_ = column_linear(set, prefix + ".in_proj", stream.hidden, 2 * inner, false, {inner, inner});
    conv_weight_ = &set.make(prefix + ".conv1d.weight", {inner, 1, stream.conv_width}, kRows, uniform);
    conv_bias_ = &set.make(prefix + ".conv1d.bias", {inner}, kRows, uniform);
    x_ = row_linear(set, prefix + ".x_proj", inner, dt_rank_ + 2L * state_, false);
    const double dt_bound = 1 / std::sqrt(static_cast<double>(dt_rank_));
    dt_.weight = &set.make(prefix + ".dt_proj.weight", {inner, dt_rank_}, kRows,
                           {Distribution::uniform, -dt_bound, dt_bound});
    dt_bias_ = &set.make(prefix + ".dt_proj.bias", {inner}, kRows,
                         {Distribution::inverse_softplus, 0.001, 0.1}, P::full);
    a_log_ = &set.make(prefix + ".A_log", {inner, state_}, kRows,
                       {Distribution::log_index, static_cast<double>(state_), 0}, P::full);
    d_ = &set.make(prefix + ".D", {inner}, kRows, constant(1), P::full);
    a_log_->decay = false;
    out_ = row_linear(set, prefix + ".out_proj", inner, stream.hidden, false, stream.layers);
  }
  Tensor operator()(const Tensor& x, const Sequences& s, Step&) const override {
    const std::vector<Tensor> xz = split_columns(in_(x), {inner_, inner_});
    const Tensor u = causal_conv(xz[0], *conv_weight_, *conv_bias_, s);
    // dt, B and C are whole on every rank but feed only its channels, so their gradients add over ranks.
    const Tensor dbc = copy_to_group(x_(u), group_);
    const std::vector<Tensor> parts = split_columns(dbc, {dt_rank_, state_, state_});
    const Tensor delta = linear(parts[0], *dt_.weight);
    return out_(selective_scan(u, delta, parts[1], parts[2], xz[1], *dt_bias_, *a_log_, *d_, s));
  }

 private:
  int64_t inner_;
  int state_, dt_rank_;
  Communicator* group_;
  Linear in_, x_, dt_, out_;
  Parameter *conv_weight_, *conv_bias_, *dt_bias_, *a_log_, *d_;
};

class Spec : public MixerSpec {
 public:
  Spec(const Options& o, const HybridStream& stream) : o_(o), stream_(stream) {}
  void check(int tp) const override { check_divides(stream_.module, "scan_inner", o_.inner, tp); }
  // In and out, dt|B|C and dt, convolution, scan.
  double flops(double) const override {
    const double d = static_cast<double>(stream_.hidden), inner = o_.inner, n = o_.state, r = o_.dt_rank;
    return 6 * d * inner + 2 * inner * (2 * r + 2 * n) + 2.0 * stream_.conv_width * inner + 7 * inner * n;
  }
  // x and z, u, delta, the scan's result; dt|B|C, whole on every rank.
  double kept(int tp) const override { return 5.0 * o_.inner / tp + o_.dt_rank + 2.0 * o_.state; }
  int64_t columns_summed() const override { return o_.dt_rank + 2L * o_.state; }
  std::unique_ptr<Mixer> make(ParameterSet& set, const std::string& prefix) const override {
    return std::make_unique<Mamba1>(set, prefix, o_, stream_);
  }

 private:
  Options o_;
  HybridStream stream_;
};

const Registry<MixerKind>::Entry entry{{"S", "Mamba-1", [](Keys& keys) { fields().declare(keys); },
                                        [](const Config::Section& s, const HybridStream& stream) {
                                          return std::make_unique<Spec>(fields().read(s), stream);
                                        }}};

}  // namespace
}  // namespace mimo
