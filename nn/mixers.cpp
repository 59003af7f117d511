#include "nn/mixers.h"

#include <cmath>

#include "parallel/collectives.h"

namespace mimo {
namespace {

int depth(const HybridOptions& o) { return static_cast<int>(layer_symbols(o.pattern).size()); }

class AttentionMixer : public Mixer {
 public:
  AttentionMixer(ParameterSet& set, const std::string& prefix, const HybridOptions& o)
      : shape_{o.heads / set.tp(), o.kv_heads / set.tp(), o.head_dim, true, o.rope_theta} {
    const int64_t q = int64_t{o.heads} * o.head_dim, kv = int64_t{o.kv_heads} * o.head_dim;
    // q, k and v are one parameter laid out q | k | v: one product instead of three.
    qkv_ = column_linear(set, prefix + ".qkv_proj", o.hidden, q + 2 * kv, false, {q, kv, kv});
    out_ = row_linear(set, prefix + ".o_proj", q, o.hidden, false, depth(o));
  }
  Tensor operator()(const Tensor& x, const Sequences& s) const override {
    return out_(attention(qkv_(x), shape_, s));
  }

 private:
  AttentionShape shape_;
  Linear qkv_, out_;
};

class MlpMixer : public Mixer {
 public:
  MlpMixer(ParameterSet& set, const std::string& prefix, const HybridOptions& o)
      : gated_(o.activation == "swiglu") {
    if (gated_) {
      up_ = column_linear(set, prefix + ".gate_up_proj", o.hidden, 2 * o.ffn, false, {o.ffn, o.ffn});
    } else {
      up_ = column_linear(set, prefix + ".up_proj", o.hidden, o.ffn, false);
      kind_ = activation_kind(o.activation);
    }
    down_ = row_linear(set, prefix + ".down_proj", o.ffn, o.hidden, false, depth(o));
  }
  Tensor operator()(const Tensor& x, const Sequences&) const override {
    const Tensor u = up_(x);
    return down_(gated_ ? swiglu(u) : activation(u, kind_));
  }

 private:
  bool gated_;
  ActivationKind kind_ = ActivationKind::relu2;
  Linear up_, down_;
};

class Mamba2Mixer : public Mixer {
 public:
  Mamba2Mixer(ParameterSet& set, const std::string& prefix, const HybridOptions& o)
      : shape_(mamba2_shape(o, set.tp())), eps_(o.eps) {
    const Mamba2Shape whole = mamba2_shape(o);
    const int64_t inner = whole.inner(), bc = int64_t{o.ssm_groups} * o.ssm_state;
    const Cut conv{.axis = 0, .blocks = {inner, bc, bc}};
    const double bound = 1 / std::sqrt(static_cast<double>(o.conv_width));
    const Initializer uniform{Distribution::uniform, -bound, bound};
    using P = ParameterSet::Precision;
    in_ = column_linear(set, prefix + ".in_proj", o.hidden, whole.projected(), false,
                        {inner, inner, bc, bc, o.ssm_heads});
    p_.conv_weight = &set.make(prefix + ".conv1d.weight", {whole.conv(), 1, o.conv_width}, conv, uniform);
    p_.conv_bias = &set.make(prefix + ".conv1d.bias", {whole.conv()}, conv, uniform);
    p_.dt_bias = &set.make(prefix + ".dt_bias", {o.ssm_heads}, kRows,
                           {Distribution::inverse_softplus, 0.001, 0.1}, P::full);
    p_.a_log =
        &set.make(prefix + ".A_log", {o.ssm_heads}, kRows, {Distribution::log_uniform, 1, 16}, P::full);
    p_.d = &set.make(prefix + ".D", {o.ssm_heads}, kRows, constant(1), P::full);
    p_.norm_weight = &set.make(prefix + ".norm.weight", {inner}, kRows, constant(1));
    out_ = row_linear(set, prefix + ".out_proj", inner, o.hidden, false, depth(o));
  }
  Tensor operator()(const Tensor& x, const Sequences& s) const override {
    return out_(mamba2(in_(x), shape_, p_, eps_, s));
  }

 private:
  Mamba2Shape shape_;
  double eps_;
  Mamba2Parameters p_;
  Linear in_, out_;
};

class Mamba1Mixer : public Mixer {
 public:
  Mamba1Mixer(ParameterSet& set, const std::string& prefix, const HybridOptions& o)
      : inner_(o.scan_inner / set.tp()), state_(o.scan_state), dt_rank_(o.scan_dt_rank), group_(set.group()) {
    const int64_t inner = o.scan_inner;
    const double bound = 1 / std::sqrt(static_cast<double>(o.conv_width));
    const Initializer uniform{Distribution::uniform, -bound, bound};
    using P = ParameterSet::Precision;
    in_ = column_linear(set, prefix + ".in_proj", o.hidden, 2 * inner, false, {inner, inner});
    conv_weight_ = &set.make(prefix + ".conv1d.weight", {inner, 1, o.conv_width}, kRows, uniform);
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
    out_ = row_linear(set, prefix + ".out_proj", inner, o.hidden, false, depth(o));
  }
  Tensor operator()(const Tensor& x, const Sequences& s) const override {
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

}  // namespace

std::string layer_symbols(const std::string& pattern) {
  std::string s = pattern;
  std::erase(s, '|');
  return s;
}

Mamba2Shape mamba2_shape(const HybridOptions& o, int tp) {
  return {o.ssm_heads / tp, o.ssm_head_dim, o.ssm_groups / tp, o.ssm_state, o.conv_width, o.ssm_chunk};
}

std::unique_ptr<Mixer> make_mixer(char symbol, ParameterSet& set, const std::string& prefix,
                                  const HybridOptions& o) {
  switch (symbol) {
    case 'M':
      return std::make_unique<Mamba2Mixer>(set, prefix, o);
    case 'S':
      return std::make_unique<Mamba1Mixer>(set, prefix, o);
    case '*':
      return std::make_unique<AttentionMixer>(set, prefix, o);
    case '-':
      return std::make_unique<MlpMixer>(set, prefix, o);
    default:
      throw std::invalid_argument(std::string("no layer '") + symbol + "'");
  }
}

ActivationKind activation_kind(const std::string& name) {
  if (name == "relu2") return ActivationKind::relu2;
  if (name == "gelu") return ActivationKind::gelu_erf;
  if (name == "gelu_tanh") return ActivationKind::gelu_tanh;
  if (name == "quick_gelu") return ActivationKind::quick_gelu;
  if (name == "silu") return ActivationKind::silu;
  throw std::invalid_argument("no activation '" + name + "'");
}

}  // namespace mimo
