// -: an MLP of two layers.
//   h += W_down act(W_up x);  swiglu: h += W_down (silu(W_gate x) * W_up x)
#include "io/fields.h"
#include "nn/activations.h"
#include "nn/linear.h"
#include "nn/mixer.h"

namespace mimo {
namespace {

struct Options {
  int64_t ffn = 256;
  std::string activation = "relu2";
  bool gated() const { return activation == "swiglu"; }
};

const Fields<Options>& fields() {
  static const Fields<Options> all = [] {
    Fields<Options> f;
    f.add("ffn", &Options::ffn, "MLP: inner width").range(1, 1 << 20);
    f.add("activation", &Options::activation, "MLP: activation; swiglu is gated")
        .one_of({"relu2", "gelu", "gelu_tanh", "silu", "swiglu"});
    return f;
  }();
  return all;
}

class Mlp : public Mixer {
 public:
  Mlp(ParameterSet& set, const std::string& prefix, const Options& o, const HybridStream& stream)
      : gated_(o.gated()) {
    if (gated_) {
      up_ = column_linear(set, prefix + ".gate_up_proj", stream.hidden, 2 * o.ffn, false, {o.ffn, o.ffn});
    } else {
      up_ = column_linear(set, prefix + ".up_proj", stream.hidden, o.ffn, false);
      kind_ = activation_kind(o.activation);
    }
    down_ = row_linear(set, prefix + ".down_proj", o.ffn, stream.hidden, false, stream.layers);
  }
  Tensor operator()(const Tensor& x, const Sequences&, Step&) const override {
    const Tensor u = up_(x);
    return down_(gated_ ? swiglu(u) : activation(u, kind_));
  }

 private:
  bool gated_;
  ActivationKind kind_ = ActivationKind::relu2;
  Linear up_, down_;
};

class Spec : public MixerSpec {
 public:
  Spec(const Options& o, const HybridStream& stream) : o_(o), stream_(stream) {}
  void check(int tp) const override { check_divides(stream_.module, "ffn", o_.ffn, tp); }
  double flops(double) const override {
    return (o_.gated() ? 6 : 4) * static_cast<double>(stream_.hidden) * static_cast<double>(o_.ffn);
  }
  // Before and after the activation.
  double kept(int tp) const override { return (o_.gated() ? 3 : 2) * static_cast<double>(o_.ffn) / tp; }
  std::unique_ptr<Mixer> make(ParameterSet& set, const std::string& prefix) const override {
    return std::make_unique<Mlp>(set, prefix, o_, stream_);
  }

 private:
  Options o_;
  HybridStream stream_;
};

const Registry<MixerKind>::Entry entry{{"-", "MLP", [](Keys& keys) { fields().declare(keys); },
                                        [](const Config::Section& s, const HybridStream& stream) {
                                          return std::make_unique<Spec>(fields().read(s), stream);
                                        }}};

}  // namespace
}  // namespace mimo
