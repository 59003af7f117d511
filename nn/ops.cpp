#include "nn/ops.h"

#include "kernels/kernels.h"

namespace mimo {
namespace {

Dims with_cols(const Tensor& x, int64_t cols) {
  Dims shape = x.shape();
  shape.back() = cols;
  return shape;
}

template <class T>
RmsNormInputs<T> rms_norm_inputs(const Tensor& x, const Parameter& weight) {
  return {
      .rows = x.rows(), .cols = static_cast<int>(x.cols()), .x = rows_of<T>(x), .w = weight.value.data<T>()};
}

template <class T>
LayerNormInputs<T> layer_norm_inputs(const Tensor& x, const Parameter& weight) {
  return {
      .rows = x.rows(), .cols = static_cast<int>(x.cols()), .x = rows_of<T>(x), .w = weight.value.data<T>()};
}

template <class T>
ActivationInputs<T> activation_inputs(const Tensor& x, ActivationKind kind) {
  return {.kind = kind, .rows = x.rows(), .cols = x.cols(), .x = rows_of<T>(x)};
}

template <class T>
SwiGluInputs<T> swiglu_inputs(const Tensor& x) {
  return {.rows = x.rows(), .cols = x.cols() / 2, .x = rows_of<T>(x)};
}

EmbeddingInputs embedding_inputs(const Tensor& ids, const Parameter& weight, int64_t first) {
  return {.tokens = ids.numel(),
          .cols = static_cast<int>(weight.value.dim(1)),
          .first = first,
          .rows = weight.value.dim(0),
          .ids = ids.data<int32_t>()};
}

}  // namespace

Sequences sequences(const std::vector<int32_t>& cu, const std::vector<int32_t>& positions) {
  return {Tensor::of(cu), static_cast<int>(cu.size()) - 1, cu.back(), Tensor::of(positions)};
}

Tensor linear(const Tensor& x, Parameter& weight, Parameter* bias) {
  const int64_t rows = x.rows(), in = weight.value.dim(1), out = weight.value.dim(0);
  MIMO_CHECK(x.cols() == in,
             weight.name + " takes " + std::to_string(in) + " columns, got " + to_string(x.shape()));
  Tensor y = Tensor::empty(with_cols(x, out), x.dtype(), x.device());
  dispatch(x.dtype(), [&]<class T>() {
    launch(Gemm<T>{.trans_b = true,
                   .m = rows,
                   .n = out,
                   .k = in,
                   .a = rows_of<T>(x),
                   .b = {weight.value.data<T>(), in},
                   .c = {y.data<T>(), out},
                   .bias = bias ? bias->value.data<T>() : nullptr});
  });
  const auto backward = [x = x.detach(), node = x.node(), w = &weight, bias, rows, in,
                         out](const Tensor& dy) {
    dispatch(x.dtype(), [&]<class T>() {
      if (node) {
        Tensor dx = empty_like(x);
        launch(Gemm<T>{.m = rows,
                       .n = in,
                       .k = out,
                       .a = rows_of<T>(dy),
                       .b = {w->value.data<T>(), in},
                       .c = {dx.data<T>(), in}});
        accumulate(node, dx);
      }
      if (w->trainable)
        launch(GemmAccumulate<T>{.trans_a = true,
                                 .m = out,
                                 .n = in,
                                 .k = rows,
                                 .a = rows_of<T>(dy),
                                 .b = rows_of<T>(x),
                                 .c = {grad_of<T>(*w), in}});
      if (bias && bias->trainable)
        launch(AddColumnSums<T>{
            .rows = rows, .cols = static_cast<int>(out), .x = rows_of<T>(dy), .y = grad_of<T>(*bias)});
    });
  };
  return record(y, "linear", {x}, backward, weight.trainable || (bias && bias->trainable));
}

Tensor add_bias(const Tensor& x, Parameter& bias) {
  const int64_t rows = x.rows(), cols = x.cols();
  Tensor y = empty_like(x);
  dispatch(x.dtype(), [&]<class T>() {
    launch(Add<T>{
        .rows = rows, .cols = cols, .a = rows_of<T>(x), .b = {bias.value.data<T>(), 0}, .y = rows_of<T>(y)});
  });
  return record(
      y, "add_bias", {x},
      [node = x.node(), b = &bias, rows, cols](const Tensor& dy) {
        accumulate(node, dy);
        if (b->trainable)
          dispatch(dy.dtype(), [&]<class T>() {
            launch(AddColumnSums<T>{
                .rows = rows, .cols = static_cast<int>(cols), .x = rows_of<T>(dy), .y = grad_of<T>(*b)});
          });
      },
      bias.trainable);
}

Tensor add(const Tensor& a, const Tensor& b) {
  MIMO_CHECK(a.shape() == b.shape(), "sum of " + to_string(a.shape()) + " and " + to_string(b.shape()));
  Tensor y = empty_like(a);
  dispatch(a.dtype(), [&]<class T>() {
    launch(Add<T>{
        .rows = a.rows(), .cols = a.cols(), .a = rows_of<T>(a), .b = rows_of<T>(b), .y = rows_of<T>(y)});
  });
  return record(y, "add", {a, b}, [na = a.node(), nb = b.node()](const Tensor& dy) {
    accumulate(na, dy);
    accumulate(nb, dy);
  });
}

Tensor rms_norm(const Tensor& x, Parameter& weight, double eps) {
  Tensor y = empty_like(x), r = Tensor::empty({x.rows()}, acc_of(x.dtype()), x.device());
  dispatch(x.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    launch(RmsNorm<T>{.in = rms_norm_inputs<T>(x, weight),
                      .eps = static_cast<A>(eps),
                      .y = rows_of<T>(y),
                      .r = r.data<A>()});
  });
  return record(
      y, "rms_norm", {x},
      [x = x.detach(), node = x.node(), w = &weight, r](const Tensor& dy) {
        Tensor dx = empty_like(x);
        dispatch(x.dtype(), [&]<class T>() {
          launch(RmsNormBackward<T>{.in = rms_norm_inputs<T>(x, *w),
                                    .r = r.data<acc_t<T>>(),
                                    .dy = rows_of<T>(dy),
                                    .dx = rows_of<T>(dx),
                                    .dw = grad_of<T>(*w)});
        });
        accumulate(node, dx);
      },
      weight.trainable);
}

Tensor layer_norm(const Tensor& x, Parameter& weight, Parameter& bias, double eps) {
  Tensor y = empty_like(x);
  Tensor mean = Tensor::empty({x.rows()}, acc_of(x.dtype()), x.device()), rstd = empty_like(mean);
  dispatch(x.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    launch(LayerNorm<T>{.in = layer_norm_inputs<T>(x, weight),
                        .b = bias.value.data<T>(),
                        .eps = static_cast<A>(eps),
                        .y = rows_of<T>(y),
                        .mean = mean.data<A>(),
                        .rstd = rstd.data<A>()});
  });
  return record(
      y, "layer_norm", {x},
      [x = x.detach(), node = x.node(), w = &weight, b = &bias, mean, rstd](const Tensor& dy) {
        Tensor dx = empty_like(x);
        dispatch(x.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(LayerNormBackward<T>{.in = layer_norm_inputs<T>(x, *w),
                                      .mean = mean.data<A>(),
                                      .rstd = rstd.data<A>(),
                                      .dy = rows_of<T>(dy),
                                      .dx = rows_of<T>(dx),
                                      .dw = grad_of<T>(*w),
                                      .db = grad_of<T>(*b)});
        });
        accumulate(node, dx);
      },
      any_trainable({&weight, &bias}));
}

Tensor activation(const Tensor& x, ActivationKind kind) {
  Tensor y = empty_like(x);
  dispatch(x.dtype(), [&]<class T>() {
    launch(Activation<T>{.in = activation_inputs<T>(x, kind), .y = rows_of<T>(y)});
  });
  return record(y, "activation", {x}, [x = x.detach(), node = x.node(), kind](const Tensor& dy) {
    Tensor dx = empty_like(x);
    dispatch(x.dtype(), [&]<class T>() {
      launch(ActivationBackward<T>{
          .in = activation_inputs<T>(x, kind), .dy = rows_of<T>(dy), .dx = rows_of<T>(dx)});
    });
    accumulate(node, dx);
  });
}

Tensor swiglu(const Tensor& x) {
  Tensor y = Tensor::empty(with_cols(x, x.cols() / 2), x.dtype(), x.device());
  dispatch(x.dtype(), [&]<class T>() { launch(SwiGlu<T>{.in = swiglu_inputs<T>(x), .y = rows_of<T>(y)}); });
  return record(y, "swiglu", {x}, [x = x.detach(), node = x.node()](const Tensor& dy) {
    Tensor dx = empty_like(x);
    dispatch(x.dtype(), [&]<class T>() {
      launch(SwiGluBackward<T>{.in = swiglu_inputs<T>(x), .dy = rows_of<T>(dy), .dx = rows_of<T>(dx)});
    });
    accumulate(node, dx);
  });
}

Tensor embedding(const Tensor& ids, Parameter& weight, int64_t first) {
  Tensor y = Tensor::empty({ids.numel(), weight.value.dim(1)}, weight.value.dtype(), ids.device());
  dispatch(y.dtype(), [&]<class T>() {
    launch(Embedding<T>{
        .in = embedding_inputs(ids, weight, first), .table = weight.value.data<T>(), .out = rows_of<T>(y)});
  });
  return record(
      y, "embedding", {},
      [ids = ids.detach(), w = &weight, first](const Tensor& dy) {
        dispatch(dy.dtype(), [&]<class T>() {
          launch(EmbeddingBackward<T>{
              .in = embedding_inputs(ids, *w, first), .dout = rows_of<T>(dy), .dtable = grad_of<T>(*w)});
        });
      },
      weight.trainable);
}

Tensor place_rows(const Tensor& stream, const Tensor& features, const Tensor& rows) {
  MIMO_CHECK(features.rows() == rows.numel(), std::to_string(features.rows()) + " feature rows for " +
                                                  std::to_string(rows.numel()) +
                                                  " places in the token stream");
  const int64_t count = rows.numel(), cols = stream.cols();
  if (count == 0) return stream;
  dispatch(stream.dtype(), [&]<class T>() {
    launch(ScatterRows<T>{.count = count,
                          .cols = cols,
                          .rows = rows.data<int32_t>(),
                          .x = rows_of<T>(features),
                          .out = rows_of<T>(stream)});
  });
  return record(stream.detach(), "place_rows", {stream, features},
                [s = stream.node(), f = features.node(), shape = features.shape(), rows, count,
                 cols](const Tensor& dy) {
                  // The rows of features are no token's: the lookup's backward leaves them out.
                  accumulate(s, dy);
                  if (!f) return;
                  Tensor df = Tensor::empty(shape, dy.dtype(), dy.device());
                  dispatch(dy.dtype(), [&]<class T>() {
                    launch(GatherRows<T>{.count = count,
                                         .cols = cols,
                                         .rows = rows.data<int32_t>(),
                                         .x = rows_of<T>(dy),
                                         .out = rows_of<T>(df)});
                  });
                  accumulate(f, df);
                });
}

Tensor add_rows(const Tensor& stream, const Tensor& features, const Tensor& rows) {
  MIMO_CHECK(features.rows() == rows.numel(), std::to_string(features.rows()) + " feature rows for " +
                                                  std::to_string(rows.numel()) +
                                                  " places in the token stream");
  const int64_t count = rows.numel(), cols = stream.cols();
  Tensor y = empty_like(stream);
  copy_into(y, stream);
  dispatch(y.dtype(), [&]<class T>() {
    launch(ScatterAddRows<T>{.count = count,
                             .cols = cols,
                             .rows = rows.data<int32_t>(),
                             .x = rows_of<T>(features),
                             .out = rows_of<T>(y)});
  });
  return record(y, "add_rows", {stream, features},
                [s = stream.node(), f = features.node(), shape = features.shape(), rows, count,
                 cols](const Tensor& dy) {
                  accumulate(s, dy);
                  if (!f) return;
                  Tensor df = Tensor::empty(shape, dy.dtype(), dy.device());
                  dispatch(dy.dtype(), [&]<class T>() {
                    launch(GatherRows<T>{.count = count,
                                         .cols = cols,
                                         .rows = rows.data<int32_t>(),
                                         .x = rows_of<T>(dy),
                                         .out = rows_of<T>(df)});
                  });
                  accumulate(f, df);
                });
}

Tensor gather_rows(const Tensor& x, const Tensor& rows) {
  const int64_t count = rows.numel(), cols = x.cols();
  Tensor y = Tensor::empty({count, cols}, x.dtype(), x.device());
  dispatch(x.dtype(), [&]<class T>() {
    launch(GatherRows<T>{.count = count,
                         .cols = cols,
                         .rows = rows.data<int32_t>(),
                         .x = rows_of<T>(x),
                         .out = rows_of<T>(y)});
  });
  return record(y, "gather_rows", {x},
                [node = x.node(), shape = x.shape(), rows, count, cols](const Tensor& dy) {
                  Tensor dx = Tensor::zeros(shape, dy.dtype(), dy.device());
                  dispatch(dy.dtype(), [&]<class T>() {
                    launch(ScatterRows<T>{.count = count,
                                          .cols = cols,
                                          .rows = rows.data<int32_t>(),
                                          .x = rows_of<T>(dy),
                                          .out = rows_of<T>(dx)});
                  });
                  accumulate(node, dx);
                });
}

CrossEntropyResult cross_entropy(const Tensor& logits, const Tensor& labels, int64_t first,
                                 Communicator* group, const Tensor& total) {
  const int64_t rows = logits.rows(), cols = logits.cols();
  const DType acc = acc_of(logits.dtype());
  const bool split = group && group->size() > 1 && rows > 0;
  Tensor max = Tensor::empty({rows}, acc, logits.device()),
         arg = Tensor::empty({rows}, DType::i32, logits.device());
  Tensor sums = Tensor::empty({2, rows}, acc, logits.device());  // exponentials | labels' logits
  CrossEntropyResult result{Tensor::empty({1}, acc, logits.device()), arg, sums};
  const auto reduce = [&](const Tensor& x, ReduceOp op) {
    group->all_reduce(x, op, current_stream()).wait();
  };
  dispatch(logits.dtype(), [&]<class T>() {
    using A = acc_t<T>;
    launch(CrossEntropyMax<T>{.rows = rows,
                              .first = first,
                              .cols = cols,
                              .logits = rows_of<T>(logits),
                              .max = max.data<A>(),
                              .arg = arg.data<int32_t>()});
    if (split) {
      const Tensor here = empty_like(max);
      copy_into(here, max);
      reduce(max, ReduceOp::max);
      launch(CrossEntropyArg<T>{
          .rows = rows, .here = here.data<A>(), .max = max.data<A>(), .arg = arg.data<int32_t>()});
      reduce(arg, ReduceOp::min);
    }
    launch(CrossEntropySum<T>{.rows = rows,
                              .first = first,
                              .cols = cols,
                              .logits = rows_of<T>(logits),
                              .labels = labels.data<int32_t>(),
                              .max = max.data<A>(),
                              .sum = sums.data<A>(),
                              .target = sums.data<A>() + rows});
    if (split) reduce(sums, ReduceOp::sum);
    const Tensor sum = total.defined() ? total : Tensor::zeros({1}, DType::f64);
    launch(CrossEntropyLoss<T>{.rows = rows,
                               .labels = labels.data<int32_t>(),
                               .sum = sums.data<A>(),
                               .target = sums.data<A>() + rows,
                               .result = sum.data<double>(),
                               .value = result.loss_sum.data<A>()});
  });
  result.loss_sum = record(
      result.loss_sum, "cross_entropy", {logits},
      [z = logits.detach(), node = logits.node(), labels, max, sums, first, rows, cols](const Tensor& dy) {
        dispatch(z.dtype(), [&]<class T>() {
          using A = acc_t<T>;
          launch(CrossEntropyGrad<T>{.rows = rows,
                                     .first = first,
                                     .cols = cols,
                                     .logits = rows_of<T>(z),
                                     .labels = labels.data<int32_t>(),
                                     .max = max.data<A>(),
                                     .sum = sums.data<A>(),
                                     .target = sums.data<A>() + rows,
                                     .dloss = dy.data<A>()});
        });
        accumulate(node, z);
      });
  return result;
}

}  // namespace mimo
