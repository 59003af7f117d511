// *: causal attention with rotary embedding and grouped key-value heads.
//   h += W_o attention(W_q x, W_k x, W_v x)
#include "io/fields.h"
#include "nn/linear.h"
#include "nn/mixer.h"
#include "tensor/error.h"

namespace mimo {
namespace {

struct Options {
  int heads = 4, kv_heads = 4, head_dim = 32;
  double rope_theta = 0;
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("heads", &Options::heads, "attention: query heads").range(1, 1024);
    f.add("kv_heads", &Options::kv_heads, "attention: key-value heads").range(1, 1024);
    f.add("head_dim", &Options::head_dim, "attention: size of a head").range(8, 256);
    f.add("rope_theta", &Options::rope_theta, "attention: base of the rotary embedding, 0 for none")
        .range(1, 1e12)
        .or_zero();
    return f;
  }();
  return all;
}

class Attention : public Mixer {
 public:
  Attention(ParameterSet& set, const std::string& prefix, const Options& o, const HybridStream& stream)
      : shape_{o.heads / set.tp(), o.kv_heads / set.tp(), o.head_dim, true, o.rope_theta} {
    const int64_t q = int64_t{o.heads} * o.head_dim, kv = int64_t{o.kv_heads} * o.head_dim;
    // q, k and v are one parameter laid out q | k | v: one product instead of three.
    qkv_ = column_linear(set, prefix + ".qkv_proj", stream.hidden, q + 2 * kv, false, {q, kv, kv});
    out_ = row_linear(set, prefix + ".o_proj", q, stream.hidden, false, stream.layers);
  }
  Tensor operator()(const Tensor& x, const Sequences& s, Step&) const override {
    return out_(attention(qkv_(x), shape_, s));
  }

 private:
  AttentionShape shape_;
  Linear qkv_, out_;
};

class Spec : public MixerSpec {
 public:
  Spec(const Options& o, const HybridStream& stream) : o_(o), stream_(stream) {}
  void check(int tp) const override {
    check_divides(stream_.module, "heads", o_.heads, tp);
    check_divides(stream_.module, "kv_heads", o_.kv_heads, tp);
  }
  // A causal product counts half.
  double flops(double length) const override {
    const double d = static_cast<double>(stream_.hidden);
    return 4 * d * q() + 4 * d * kv() + 2 * q() * length;
  }
  // q|k|v and the result; rotary embedding makes another q|k.
  double kept(int tp) const override {
    return (2 * q() + 2 * kv() + (o_.rope_theta > 0 ? q() + kv() : 0)) / tp;
  }
  std::unique_ptr<Mixer> make(ParameterSet& set, const std::string& prefix) const override {
    return std::make_unique<Attention>(set, prefix, o_, stream_);
  }

 private:
  double q() const { return double(o_.heads) * o_.head_dim; }
  double kv() const { return double(o_.kv_heads) * o_.head_dim; }
  Options o_;
  HybridStream stream_;
};

std::unique_ptr<MixerSpec> read(const Config::Section& s, const HybridStream& stream) {
  const Options o = fields().read(s);
  if (o.head_dim % 8 != 0)
    throw ConfigError(s.place("head_dim"),
                      "expected a multiple of 8, at most 256, found " + std::to_string(o.head_dim));
  if (o.heads % o.kv_heads != 0)
    throw ConfigError(s.place("kv_heads"), "expected a divisor of heads " + std::to_string(o.heads) +
                                               ", found " + std::to_string(o.kv_heads));
  return std::make_unique<Spec>(o, stream);
}

const Registry<MixerKind>::Entry entry{
    {"*", "causal attention", [](Keys& keys) { fields().declare(keys); }, read}};

}  // namespace
}  // namespace mimo
