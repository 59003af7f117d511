// Ops along packed sequences: attention, Mamba-2, causal convolution, Mamba-1's scan.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/causal_conv.h"
#include "kernels/gated_norm.h"
#include "kernels/rope.h"
#include "kernels/selective_scan.h"
#include "kernels/ssd.h"
#include "nn/ops.h"

namespace mimo {
namespace {

// q and k of a fused projection, rotated; `to` may be `qk`.
template <class T>
void rotate(const Tensor& qk, const Tensor& to, const AttentionShape& s, const Sequences& seqs,
            bool inverse) {
  launch(Rope<T>{.tokens = seqs.tokens,
                 .heads = s.heads + s.kv_heads,
                 .head_dim = s.head_dim,
                 .rotary = s.head_dim,
                 .theta = s.rope_theta,
                 .positions = seqs.positions.data<int32_t>(),
                 .inverse = inverse,
                 .x = rows_of<T>(qk),
                 .y = rows_of<T>(to)});
}

template <class T>
CausalConvInputs<T> conv_inputs(const Tensor& x, const Parameter& weight, const Parameter& bias,
                                const Sequences& seqs) {
  return {.sequences = seqs.count,
          .cu = seqs.cu.data<int32_t>(),
          .tokens = seqs.tokens,
          .channels = static_cast<int>(x.cols()),
          .width = static_cast<int>(weight.value.dim(-1)),
          .x = rows_of<T>(x),
          .weight = weight.value.data<T>(),
          .bias = bias.value.data<T>()};
}

Tensor convolve(const Tensor& x, const Parameter& weight, const Parameter& bias, const Sequences& seqs) {
  const Tensor y = empty_like(x);
  dispatch(x.dtype(), [&]<class T>() {
    launch(CausalConv<T>{.in = conv_inputs<T>(x, weight, bias, seqs), .y = rows_of<T>(y)});
  });
  return y;
}

void convolve_backward(const Tensor& x, const Parameter& weight, const Parameter& bias, const Sequences& seqs,
                       const Tensor& dy, const Tensor& dx) {
  dispatch(x.dtype(), [&]<class T>() {
    launch(CausalConvBackward<T>{.in = conv_inputs<T>(x, weight, bias, seqs),
                                 .dy = rows_of<T>(dy),
                                 .dx = rows_of<T>(dx),
                                 .dweight = grad_of<T>(weight),
                                 .dbias = grad_of<T>(bias)});
  });
}

// Mamba-2's slices of z|x|B|C|dt, and of the convolution's result x|B|C.
Tensor z_of(const Tensor& zxbcdt, const Mamba2Shape& s) { return zxbcdt.columns(0, s.inner()); }
Tensor xbc_of(const Tensor& zxbcdt, const Mamba2Shape& s) { return zxbcdt.columns(s.inner(), s.conv()); }
Tensor dt_of(const Tensor& zxbcdt, const Mamba2Shape& s) {
  return zxbcdt.columns(s.inner() + s.conv(), s.heads);
}
struct ScanInputs {
  Tensor x, b, c;
  ScanInputs(const Tensor& xbc, const Mamba2Shape& s) {
    const int64_t bc = int64_t{s.groups} * s.state;
    x = xbc.columns(0, s.inner());
    b = xbc.columns(s.inner(), bc);
    c = xbc.columns(s.inner() + bc, bc);
  }
};

template <class T>
SelectiveScanInputs<T> selective_scan_inputs(const Tensor& u, const Tensor& delta, const Tensor& b,
                                             const Tensor& c, const Tensor& z, const Parameter& delta_bias,
                                             const Parameter& a_log, const Parameter& d,
                                             const Sequences& seqs) {
  using A = acc_t<T>;
  return {.sequences = seqs.count,
          .cu = seqs.cu.data<int32_t>(),
          .tokens = seqs.tokens,
          .channels = static_cast<int>(u.cols()),
          .state = static_cast<int>(b.cols()),
          .u = rows_of<T>(u),
          .delta = rows_of<T>(delta),
          .b = rows_of<T>(b),
          .c = rows_of<T>(c),
          .z = rows_of<T>(z),
          .delta_bias = delta_bias.value.data<A>(),
          .a_log = a_log.value.data<A>(),
          .d = d.value.data<A>()};
}

template <class T>
AttentionInputs<T> attention_inputs(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionShape& s, const Sequences& seqs) {
  const int32_t* cu = seqs.cu.data<int32_t>();
  return {.sequences = seqs.count,
          .cu_q = cu,
          .cu_k = cu,
          .tokens_q = seqs.tokens,
          .tokens_k = seqs.tokens,
          .heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .causal = s.causal,
          .scale = static_cast<acc_t<T>>(1 / std::sqrt(static_cast<double>(s.head_dim))),
          .q = rows_of<T>(q),
          .k = rows_of<T>(k),
          .v = rows_of<T>(v)};
}

template <class T>
SsdInputs<T> ssd_inputs(const ScanInputs& in, const Tensor& dt, const Mamba2Shape& s,
                        const Mamba2Parameters& p, const Sequences& seqs) {
  using A = acc_t<T>;
  return {.sequences = seqs.count,
          .cu = seqs.cu.data<int32_t>(),
          .tokens = seqs.tokens,
          .heads = s.heads,
          .head_dim = s.head_dim,
          .groups = s.groups,
          .state = s.state,
          .chunk = s.chunk,
          .x = rows_of<T>(in.x),
          .b = rows_of<T>(in.b),
          .c = rows_of<T>(in.c),
          .dt = rows_of<T>(dt),
          .dt_bias = p.dt_bias->value.data<A>(),
          .a_log = p.a_log->value.data<A>(),
          .d = p.d->value.data<A>()};
}

template <class T>
GatedNormInputs<T> gated_norm_inputs(const Tensor& y, const Tensor& z, const Mamba2Shape& s,
                                     const Parameter& weight) {
  return {.rows = y.rows(),
          .cols = static_cast<int>(y.cols()),
          .groups = s.groups,
          .y = rows_of<T>(y),
          .z = rows_of<T>(z),
          .w = weight.value.data<T>()};
}

}  // namespace

Tensor attention(const Tensor& qkv, const AttentionShape& s, const Sequences& seqs) {
  const int64_t tokens = seqs.tokens, q_cols = static_cast<int64_t>(s.heads) * s.head_dim,
                kv_cols = static_cast<int64_t>(s.kv_heads) * s.head_dim;
  MIMO_CHECK(qkv.cols() == q_cols + 2 * kv_cols && qkv.rows() == tokens,
             "fused q|k|v of shape " + to_string(qkv.shape()));
  Tensor o = Tensor::empty({tokens, q_cols}, qkv.dtype(), qkv.device());
  Tensor lse = Tensor::empty({s.heads, tokens}, acc_of(qkv.dtype()), qkv.device());
  Tensor q = qkv.columns(0, q_cols), k = qkv.columns(q_cols, kv_cols),
         v = qkv.columns(q_cols + kv_cols, kv_cols);
  dispatch(qkv.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    if (s.rope_theta > 0) {
      const Tensor qk = Tensor::empty({tokens, q_cols + kv_cols}, qkv.dtype(), qkv.device());
      rotate<T>(qkv.columns(0, q_cols + kv_cols), qk, s, seqs, false);
      q = qk.columns(0, q_cols);
      k = qk.columns(q_cols, kv_cols);
    }
    launch(
        Attention<T>{.in = attention_inputs<T>(q, k, v, s, seqs), .o = rows_of<T>(o), .lse = lse.data<A>()});
  });
  return record(
      o, "attention", {qkv},
      [node = qkv.node(), shape = qkv.shape(), q, k, v, o, lse, s, seqs, q_cols, kv_cols](const Tensor& d_o) {
        Tensor d = Tensor::empty(shape, d_o.dtype(), d_o.device());
        const Tensor dq = d.columns(0, q_cols), dk = d.columns(q_cols, kv_cols),
                     dv = d.columns(q_cols + kv_cols, kv_cols);
        dispatch(d_o.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(AttentionBackward<T>{.in = attention_inputs<T>(q, k, v, s, seqs),
                                      .o = rows_of<T>(o),
                                      .lse = lse.data<A>(),
                                      .d_o = rows_of<T>(d_o),
                                      .dq = rows_of<T>(dq),
                                      .dk = rows_of<T>(dk),
                                      .dv = rows_of<T>(dv)});
          const Tensor dqk = d.columns(0, q_cols + kv_cols);
          if (s.rope_theta > 0) rotate<T>(dqk, dqk, s, seqs, true);
        });
        accumulate(node, d);
      });
}

Tensor mamba2(const Tensor& zxbcdt, const Mamba2Shape& s, const Mamba2Parameters& p, double eps,
              const Sequences& seqs) {
  const int64_t tokens = seqs.tokens;
  const int inner = static_cast<int>(s.inner());
  MIMO_CHECK(zxbcdt.cols() == s.projected() && zxbcdt.rows() == tokens,
             "fused z|x|B|C|dt of shape " + to_string(zxbcdt.shape()));
  const DType acc = acc_of(zxbcdt.dtype());
  const Tensor y = Tensor::empty({tokens, inner}, zxbcdt.dtype(), zxbcdt.device()), out = empty_like(y),
               r = Tensor::empty({tokens, s.groups}, acc, zxbcdt.device());
  dispatch(zxbcdt.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    const ScanInputs in(convolve(xbc_of(zxbcdt, s), *p.conv_weight, *p.conv_bias, seqs), s);
    const Tensor z = z_of(zxbcdt, s), dt = dt_of(zxbcdt, s);
    launch(Ssd<T>{.in = ssd_inputs<T>(in, dt, s, p, seqs), .y = rows_of<T>(y)});
    launch(GatedNorm<T>{.in = gated_norm_inputs<T>(y, z, s, *p.norm_weight),
                        .eps = static_cast<A>(eps),
                        .out = rows_of<T>(out),
                        .r = r.data<A>()});
  });
  // The convolution is cheap to run again: backward keeps its input alone.
  return record(
      out, "mamba2", {zxbcdt},
      [zxbcdt = zxbcdt.detach(), node = zxbcdt.node(), y, r, s, p, seqs, tokens, inner](const Tensor& dout) {
        const Tensor d = empty_like(zxbcdt), dy = empty_like(y);
        const Tensor xbc = convolve(xbc_of(zxbcdt, s), *p.conv_weight, *p.conv_bias, seqs),
                     dxbc = empty_like(xbc);
        const ScanInputs in(xbc, s), din(dxbc, s);
        const Tensor z = z_of(zxbcdt, s), dz = z_of(d, s), dt = dt_of(zxbcdt, s), ddt = dt_of(d, s);
        dispatch(zxbcdt.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(GatedNormBackward<T>{.in = gated_norm_inputs<T>(y, z, s, *p.norm_weight),
                                      .r = r.data<A>(),
                                      .dout = rows_of<T>(dout),
                                      .dy = rows_of<T>(dy),
                                      .dz = rows_of<T>(dz),
                                      .dw = grad_of<T>(*p.norm_weight)});
          launch(SsdBackward<T>{.in = ssd_inputs<T>(in, dt, s, p, seqs),
                                .dy = rows_of<T>(dy),
                                .dx = rows_of<T>(din.x),
                                .db = rows_of<T>(din.b),
                                .dc = rows_of<T>(din.c),
                                .ddt = rows_of<T>(ddt),
                                .ddt_bias = grad_of<T>(*p.dt_bias),
                                .da_log = grad_of<T>(*p.a_log),
                                .dd = grad_of<T>(*p.d)});
        });
        convolve_backward(xbc_of(zxbcdt, s), *p.conv_weight, *p.conv_bias, seqs, dxbc, xbc_of(d, s));
        accumulate(node, d);
      },
      any_trainable({p.conv_weight, p.conv_bias, p.dt_bias, p.a_log, p.d, p.norm_weight}));
}

Tensor causal_conv(const Tensor& x, Parameter& weight, Parameter& bias, const Sequences& seqs) {
  return record(
      convolve(x, weight, bias, seqs), "causal_conv", {x},
      [x = x.detach(), node = x.node(), w = &weight, b = &bias, seqs](const Tensor& dy) {
        const Tensor dx = empty_like(x);
        convolve_backward(x, *w, *b, seqs, dy, dx);
        accumulate(node, dx);
      },
      any_trainable({&weight, &bias}));
}

Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& b, const Tensor& c, const Tensor& z,
                      Parameter& delta_bias, Parameter& a_log, Parameter& d, const Sequences& seqs) {
  const Tensor y = empty_like(u);
  dispatch(u.dtype(), [&]<class T>() {
    launch(SelectiveScan<T>{.in = selective_scan_inputs<T>(u, delta, b, c, z, delta_bias, a_log, d, seqs),
                            .y = rows_of<T>(y)});
  });
  return record(
      y, "selective_scan", {u, delta, b, c, z},
      [u = u.detach(), delta = delta.detach(), b = b.detach(), c = c.detach(), z = z.detach(), nu = u.node(),
       nd = delta.node(), nb = b.node(), nc = c.node(), nz = z.node(), bias = &delta_bias, a = &a_log,
       skip = &d, seqs](const Tensor& dy) {
        const Tensor du = empty_like(u), dd = empty_like(delta), db = empty_like(b), dc = empty_like(c),
                     dz = empty_like(z);
        dispatch(u.dtype(), [&]<class T>() {
          launch(SelectiveScanBackward<T>{
              .in = selective_scan_inputs<T>(u, delta, b, c, z, *bias, *a, *skip, seqs),
              .dy = rows_of<T>(dy),
              .du = rows_of<T>(du),
              .ddelta = rows_of<T>(dd),
              .db = rows_of<T>(db),
              .dc = rows_of<T>(dc),
              .dz = rows_of<T>(dz),
              .ddelta_bias = grad_of<T>(*bias),
              .da_log = grad_of<T>(*a),
              .dd = grad_of<T>(*skip)});
        });
        accumulate(nu, du);
        accumulate(nd, dd);
        accumulate(nb, db);
        accumulate(nc, dc);
        accumulate(nz, dz);
      },
      any_trainable({&delta_bias, &a_log, &d}));
}

}  // namespace mimo
