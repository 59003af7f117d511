// Ops along packed sequences: attention, Mamba-2, causal convolution, Mamba-1's scan.
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/causal_conv.h"
#include "kernels/gated_norm.h"
#include "kernels/rope.h"
#include "kernels/selective_scan.h"
#include "kernels/ssd.h"
#include "nn/ops.h"

namespace mimo {
namespace {

template <class T>
acc_t<T>* grad_of(Parameter& p) {
  return p.trainable ? p.grad.data<acc_t<T>>() : nullptr;
}

// q and k of a fused projection, rotated in place.
template <class T>
void rotate(const Tensor& qk, const AttentionShape& s, const Sequences& seqs, bool inverse) {
  launch(Rope<T>{seqs.tokens, s.heads + s.kv_heads, s.head_dim, s.head_dim, s.rope_theta,
                 seqs.positions.data<int32_t>(), inverse, qk.data<T>(), qk.ld(), qk.data<T>(), qk.ld()});
}

}  // namespace

Tensor attention(const Tensor& qkv, const AttentionShape& s, const Sequences& seqs) {
  const int64_t tokens = seqs.tokens, q_cols = static_cast<int64_t>(s.heads) * s.head_dim,
                kv_cols = static_cast<int64_t>(s.kv_heads) * s.head_dim;
  MIMO_CHECK(qkv.cols() == q_cols + 2 * kv_cols && qkv.rows() == tokens,
             "fused q|k|v of shape " + to_string(qkv.shape()));
  Tensor o = Tensor::empty({tokens, q_cols}, qkv.dtype(), qkv.device());
  Tensor lse = Tensor::empty({s.heads, tokens}, acc_of(qkv.dtype()), qkv.device());
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  const int32_t* cu = seqs.cu.data<int32_t>();

  Tensor q = qkv.columns(0, q_cols), k = qkv.columns(q_cols, kv_cols),
         v = qkv.columns(q_cols + kv_cols, kv_cols);
  dispatch(qkv.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    if (s.rope_theta > 0) {
      Tensor qk = contiguous(qkv.columns(0, q_cols + kv_cols));
      if (qk.raw() == qkv.raw()) {
        qk = Tensor::empty(qk.shape(), qk.dtype(), qk.device());
        copy_into(qk, qkv.columns(0, q_cols + kv_cols));
      }
      rotate<T>(qk, s, seqs, false);
      q = qk.columns(0, q_cols);
      k = qk.columns(q_cols, kv_cols);
    }
    launch(Attention<T>{seqs.count,  cu,      cu,           nullptr,    nullptr,     tokens,
                        tokens,      s.heads, s.kv_heads,   s.head_dim, s.causal,    static_cast<A>(scale),
                        q.data<T>(), q.ld(),  k.data<T>(),  k.ld(),     v.data<T>(), v.ld(),
                        o.data<T>(), o.ld(),  lse.data<A>()});
  });
  return record(
      o, "attention", {qkv},
      [node = qkv.node(), shape = qkv.shape(), q, k, v, o, lse, s, seqs, scale, q_cols,
       kv_cols](const Tensor& d_o) {
        Tensor d = Tensor::empty(shape, d_o.dtype(), d_o.device());
        const Tensor dq = d.columns(0, q_cols), dk = d.columns(q_cols, kv_cols),
                     dv = d.columns(q_cols + kv_cols, kv_cols);
        const int32_t* first_row = seqs.cu.data<int32_t>();
        dispatch(d_o.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(AttentionBackward<T>{
              seqs.count,   first_row, first_row,     nullptr,    nullptr,       seqs.tokens,
              seqs.tokens,  s.heads,   s.kv_heads,    s.head_dim, s.causal,      static_cast<A>(scale),
              q.data<T>(),  q.ld(),    k.data<T>(),   k.ld(),     v.data<T>(),   v.ld(),
              o.data<T>(),  o.ld(),    lse.data<A>(), nullptr,    d_o.data<T>(), d_o.ld(),
              dq.data<T>(), dq.ld(),   dk.data<T>(),  dk.ld(),    dv.data<T>(),  dv.ld()});
          if (s.rope_theta > 0) rotate<T>(d.columns(0, q_cols + kv_cols), s, seqs, true);
        });
        accumulate(node, d);
      });
}

Tensor mamba2(const Tensor& zxbcdt, const Mamba2Shape& s, const Mamba2Parameters& p, double eps,
              const Sequences& seqs) {
  const int64_t tokens = seqs.tokens, inner = s.inner(), bc = static_cast<int64_t>(s.groups) * s.state;
  MIMO_CHECK(zxbcdt.cols() == s.projected() && zxbcdt.rows() == tokens,
             "fused z|x|B|C|dt of shape " + to_string(zxbcdt.shape()));
  const DType acc = acc_of(zxbcdt.dtype());
  Tensor y = Tensor::empty({tokens, inner}, zxbcdt.dtype(), zxbcdt.device()),
         out = Tensor::empty(y.shape(), y.dtype());
  Tensor r = Tensor::empty({tokens, s.groups}, acc, zxbcdt.device());

  // conv(x|B|C) is cheap to run again, so backward recomputes it.
  const auto convolve = [s, p, seqs](const Tensor& projected) {
    Tensor xbc = Tensor::empty({seqs.tokens, s.conv()}, projected.dtype(), projected.device());
    const Tensor in = projected.columns(s.inner(), s.conv());
    dispatch(projected.dtype(), [&]<class T>() {
      launch(CausalConv<T>{seqs.count, seqs.cu.data<int32_t>(), seqs.tokens, static_cast<int>(s.conv()),
                           s.conv_width, in.data<T>(), in.ld(), p.conv_weight->value.data<T>(),
                           p.conv_bias->value.data<T>(), nullptr, xbc.data<T>(), xbc.ld(), nullptr});
    });
    return xbc;
  };

  dispatch(zxbcdt.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    const Tensor xbc = convolve(zxbcdt);
    const Tensor x = xbc.columns(0, inner), b = xbc.columns(inner, bc), c = xbc.columns(inner + bc, bc);
    const Tensor z = zxbcdt.columns(0, inner), dt = zxbcdt.columns(inner + s.conv(), s.heads);
    launch(Ssd<T>{seqs.count,
                  seqs.cu.data<int32_t>(),
                  tokens,
                  s.heads,
                  s.head_dim,
                  s.groups,
                  s.state,
                  s.chunk,
                  x.data<T>(),
                  x.ld(),
                  b.data<T>(),
                  b.ld(),
                  c.data<T>(),
                  c.ld(),
                  dt.data<T>(),
                  dt.ld(),
                  p.dt_bias->value.data<A>(),
                  p.a_log->value.data<A>(),
                  p.d->value.data<A>(),
                  0,
                  std::numeric_limits<A>::infinity(),
                  nullptr,
                  y.data<T>(),
                  y.ld(),
                  nullptr});
    launch(GatedNorm<T>{tokens, static_cast<int>(inner), s.groups, y.data<T>(), y.ld(), z.data<T>(), z.ld(),
                        p.norm_weight->value.data<T>(), static_cast<A>(eps), out.data<T>(), out.ld(),
                        r.data<A>()});
  });
  const bool trainable = p.conv_weight->trainable;
  return record(
      out, "mamba2", {zxbcdt},
      [projected = zxbcdt.detach(), node = zxbcdt.node(), y, r, s, p, seqs, convolve, tokens, inner, bc,
       trainable](const Tensor& dout) {
        Tensor d = Tensor::empty(projected.shape(), projected.dtype(), projected.device());
        dispatch(projected.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          const Tensor z = projected.columns(0, inner), dz = d.columns(0, inner);
          Tensor dy = Tensor::empty(y.shape(), y.dtype(), y.device());
          launch(GatedNormBackward<T>{tokens, static_cast<int>(inner), s.groups, y.data<T>(), y.ld(),
                                      z.data<T>(), z.ld(), p.norm_weight->value.data<T>(), r.data<A>(),
                                      dout.data<T>(), dout.ld(), dy.data<T>(), dy.ld(), dz.data<T>(), dz.ld(),
                                      grad_of<T>(*p.norm_weight)});
          const Tensor xbc = convolve(projected);
          Tensor dxbc = Tensor::empty(xbc.shape(), xbc.dtype(), xbc.device());
          const Tensor x = xbc.columns(0, inner), b = xbc.columns(inner, bc), c = xbc.columns(inner + bc, bc);
          const Tensor dx = dxbc.columns(0, inner), db = dxbc.columns(inner, bc),
                       dc = dxbc.columns(inner + bc, bc);
          const Tensor dt = projected.columns(inner + s.conv(), s.heads),
                       ddt = d.columns(inner + s.conv(), s.heads);
          Tensor unused;  // the contract always adds parameter gradients; frozen ones go here
          if (!trainable)
            unused =
                Tensor::zeros({3 * s.heads + s.conv() * (s.conv_width + 1)}, acc_of(y.dtype()), y.device());
          A* const spare = trainable ? nullptr : unused.data<A>();
          launch(SsdBackward<T>{seqs.count,
                                seqs.cu.data<int32_t>(),
                                tokens,
                                s.heads,
                                s.head_dim,
                                s.groups,
                                s.state,
                                s.chunk,
                                x.data<T>(),
                                x.ld(),
                                b.data<T>(),
                                b.ld(),
                                c.data<T>(),
                                c.ld(),
                                dt.data<T>(),
                                dt.ld(),
                                p.dt_bias->value.data<A>(),
                                p.a_log->value.data<A>(),
                                p.d->value.data<A>(),
                                0,
                                std::numeric_limits<A>::infinity(),
                                nullptr,
                                dy.data<T>(),
                                dy.ld(),
                                nullptr,
                                dx.data<T>(),
                                dx.ld(),
                                db.data<T>(),
                                db.ld(),
                                dc.data<T>(),
                                dc.ld(),
                                ddt.data<T>(),
                                ddt.ld(),
                                trainable ? p.dt_bias->grad.data<A>() : spare,
                                trainable ? p.a_log->grad.data<A>() : spare + s.heads,
                                trainable ? p.d->grad.data<A>() : spare + 2 * s.heads,
                                nullptr});
          const Tensor in = projected.columns(inner, s.conv()), din = d.columns(inner, s.conv());
          launch(CausalConvBackward<T>{
              seqs.count, seqs.cu.data<int32_t>(), tokens, static_cast<int>(s.conv()), s.conv_width,
              in.data<T>(), in.ld(), p.conv_weight->value.data<T>(), p.conv_bias->value.data<T>(), nullptr,
              dxbc.data<T>(), dxbc.ld(), nullptr, din.data<T>(), din.ld(),
              trainable ? p.conv_weight->grad.data<A>() : spare + 3 * s.heads,
              trainable ? p.conv_bias->grad.data<A>() : spare + 3 * s.heads + s.conv() * s.conv_width,
              nullptr});
        });
        accumulate(node, d);
      },
      trainable);
}

Tensor causal_conv(const Tensor& x, Parameter& weight, Parameter& bias, const Sequences& seqs) {
  const int channels = static_cast<int>(x.cols()), width = static_cast<int>(weight.value.dim(-1));
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  dispatch(x.dtype(), [&]<class T>() {
    launch(CausalConv<T>{seqs.count, seqs.cu.data<int32_t>(), seqs.tokens, channels, width, x.data<T>(),
                         x.ld(), weight.value.data<T>(), bias.value.data<T>(), nullptr, y.data<T>(), y.ld(),
                         nullptr});
  });
  return record(
      y, "causal_conv", {x},
      [x = x.detach(), node = x.node(), w = &weight, b = &bias, seqs, channels, width](const Tensor& dy) {
        Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
        const bool trainable = w->trainable;
        const Tensor unused =
            trainable ? Tensor() : Tensor::zeros({channels, width + 1}, acc_of(x.dtype()), x.device());
        dispatch(x.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(CausalConvBackward<T>{
              seqs.count, seqs.cu.data<int32_t>(), seqs.tokens, channels, width, x.data<T>(), x.ld(),
              w->value.data<T>(), b->value.data<T>(), nullptr, dy.data<T>(), dy.ld(), nullptr, dx.data<T>(),
              dx.ld(), trainable ? w->grad.data<A>() : unused.data<A>(),
              trainable ? b->grad.data<A>() : unused.data<A>() + int64_t{channels} * width, nullptr});
        });
        accumulate(node, dx);
      },
      weight.trainable);
}

Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& b, const Tensor& c, const Tensor& z,
                      Parameter& delta_bias, Parameter& a_log, Parameter& d, const Sequences& seqs) {
  const int channels = static_cast<int>(u.cols()), state = static_cast<int>(b.cols());
  Tensor y = Tensor::empty(u.shape(), u.dtype(), u.device());
  dispatch(u.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    launch(SelectiveScan<T>{seqs.count,
                            seqs.cu.data<int32_t>(),
                            seqs.tokens,
                            channels,
                            state,
                            u.data<T>(),
                            u.ld(),
                            delta.data<T>(),
                            delta.ld(),
                            b.data<T>(),
                            b.ld(),
                            c.data<T>(),
                            c.ld(),
                            z.data<T>(),
                            z.ld(),
                            delta_bias.value.data<A>(),
                            a_log.value.data<A>(),
                            d.value.data<A>(),
                            nullptr,
                            y.data<T>(),
                            y.ld(),
                            nullptr});
  });
  return record(
      y, "selective_scan", {u, delta, b, c, z},
      [u = u.detach(), delta = delta.detach(), b = b.detach(), c = c.detach(), z = z.detach(), nu = u.node(),
       nd = delta.node(), nb = b.node(), nc = c.node(), nz = z.node(), bias = &delta_bias, a = &a_log,
       skip = &d, seqs, channels, state](const Tensor& dy) {
        const auto like = [](const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); };
        Tensor du = like(u), dd = like(delta), db = like(b), dc = like(c), dz = like(z);
        const bool trainable = a->trainable;
        const Tensor unused =
            trainable ? Tensor() : Tensor::zeros({channels, state + 2}, acc_of(u.dtype()), u.device());
        dispatch(u.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          A* const spare = trainable ? nullptr : unused.data<A>();
          launch(SelectiveScanBackward<T>{
              seqs.count,
              seqs.cu.data<int32_t>(),
              seqs.tokens,
              channels,
              state,
              u.data<T>(),
              u.ld(),
              delta.data<T>(),
              delta.ld(),
              b.data<T>(),
              b.ld(),
              c.data<T>(),
              c.ld(),
              z.data<T>(),
              z.ld(),
              bias->value.data<A>(),
              a->value.data<A>(),
              skip->value.data<A>(),
              nullptr,
              dy.data<T>(),
              dy.ld(),
              nullptr,
              du.data<T>(),
              du.ld(),
              dd.data<T>(),
              dd.ld(),
              db.data<T>(),
              db.ld(),
              dc.data<T>(),
              dc.ld(),
              dz.data<T>(),
              dz.ld(),
              trainable ? bias->grad.data<A>() : spare,
              trainable ? a->grad.data<A>() : spare + channels,
              trainable ? skip->grad.data<A>() : spare + int64_t{channels} * (state + 1),
              nullptr});
        });
        accumulate(nu, du);
        accumulate(nd, dd);
        accumulate(nb, db);
        accumulate(nc, dc);
        accumulate(nz, dz);
      },
      a_log.trainable);
}

}  // namespace mimo
