// M: Mamba-2, a state space model by heads (SSD).
//   z|x|B|C|dt = W_in u;  h += W_out norm(scan(silu(conv(x|B|C)), softplus(dt + b), -exp(A_log)) + D x, gated
//   by z)
// Source: Dao, Gu, Transformers are SSMs, 2024 (arXiv 2405.21060).
#include <cmath>

#include "io/fields.h"
#include "nn/linear.h"
#include "nn/mixer.h"
#include "tensor/error.h"

namespace mimo {
namespace {

struct Options {
  int heads = 8, head_dim = 32, groups = 4, state = 32, chunk = 64;
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("ssm_heads", &Options::heads, "Mamba-2: heads").range(1, 4096);
    f.add("ssm_head_dim", &Options::head_dim, "Mamba-2: size of a head").range(1, 512);
    f.add("ssm_groups", &Options::groups, "Mamba-2: groups that share B and C").range(1, 1024);
    f.add("ssm_state", &Options::state, "Mamba-2: size of the state").range(1, 1024);
    f.add("ssm_chunk", &Options::chunk, "Mamba-2: tokens in a chunk of the scan")
        .range(1, 1024)
        .fixing("");  // sums in another order
    return f;
  }();
  return all;
}

// What each of tp ranks has.
Mamba2Shape shape_of(const Options& o, const HybridStream& stream, int tp = 1) {
  return {o.heads / tp, o.head_dim, o.groups / tp, o.state, stream.conv_width, o.chunk};
}

class Mamba2 : public Mixer {
 public:
  Mamba2(ParameterSet& set, const std::string& prefix, const Options& o, const HybridStream& stream)
      : shape_(shape_of(o, stream, set.tp())), eps_(stream.eps) {
    const Mamba2Shape whole = shape_of(o, stream);
    const int64_t inner = whole.inner(), bc = int64_t{o.groups} * o.state;
    const Cut conv{.axis = 0, .blocks = {inner, bc, bc}};
    const double bound = 1 / std::sqrt(static_cast<double>(stream.conv_width));
    const Initializer uniform{Distribution::uniform, -bound, bound};
    using P = ParameterSet::Precision;
    in_ = column_linear(set, prefix + ".in_proj", stream.hidden, whole.projected(), false,
                        {inner, inner, bc, bc, o.heads});
    p_.conv_weight =
        &set.make(prefix + ".conv1d.weight", {whole.conv(), 1, stream.conv_width}, conv, uniform);
    p_.conv_bias = &set.make(prefix + ".conv1d.bias", {whole.conv()}, conv, uniform);
    p_.dt_bias = &set.make(prefix + ".dt_bias", {o.heads}, kRows,
                           {Distribution::inverse_softplus, 0.001, 0.1}, P::full);
    p_.a_log = &set.make(prefix + ".A_log", {o.heads}, kRows, {Distribution::log_uniform, 1, 16}, P::full);
    p_.d = &set.make(prefix + ".D", {o.heads}, kRows, constant(1), P::full);
    p_.norm_weight = &set.make(prefix + ".norm.weight", {inner}, kRows, constant(1));
    out_ = row_linear(set, prefix + ".out_proj", inner, stream.hidden, false, stream.layers);
  }
  Tensor operator()(const Tensor& x, const Sequences& s, Step&) const override {
    return out_(mamba2(in_(x), shape_, p_, eps_, s));
  }

 private:
  Mamba2Shape shape_;
  double eps_;
  Mamba2Parameters p_;
  Linear in_, out_;
};

class Spec : public MixerSpec {
 public:
  Spec(const Options& o, const HybridStream& stream) : o_(o), stream_(stream) {}
  void check(int tp) const override {
    check_divides(stream_.module, "ssm_heads", o_.heads, tp);
    check_divides(stream_.module, "ssm_groups", o_.groups, tp);
  }
  // In and out, convolution, C B^T and its product with x inside a chunk, states and their use.
  double flops(double length) const override {
    const Mamba2Shape s = shape_of(o_, stream_);
    const double d = real(stream_.hidden), q = std::min<double>(o_.chunk, length), inner = real(s.inner()),
                 n = o_.state;
    return 2 * d * real(s.projected()) + 2 * d * inner + 2.0 * stream_.conv_width * real(s.conv()) +
           q * (n * o_.groups + inner) + 4 * inner * n;
  }
  // z|x|B|C|dt, the scan's result, the gated norm's.
  double kept(int tp) const override {
    const Mamba2Shape s = shape_of(o_, stream_);
    return real(s.projected() + 2 * s.inner()) / tp;
  }
  std::unique_ptr<Mixer> make(ParameterSet& set, const std::string& prefix) const override {
    return std::make_unique<Mamba2>(set, prefix, o_, stream_);
  }

 private:
  static double real(int64_t n) { return static_cast<double>(n); }
  Options o_;
  HybridStream stream_;
};

std::unique_ptr<MixerSpec> read(const Config::Section& s, const HybridStream& stream) {
  const Options o = fields().read(s);
  if (o.heads % o.groups != 0)
    throw ConfigError(s.place("ssm_groups"), "expected a divisor of ssm_heads " + std::to_string(o.heads) +
                                                 ", found " + std::to_string(o.groups));
  return std::make_unique<Spec>(o, stream);
}

const Registry<MixerKind>::Entry entry{{"M", "Mamba-2", [](Keys& keys) { fields().declare(keys); }, read}};

}  // namespace
}  // namespace mimo
