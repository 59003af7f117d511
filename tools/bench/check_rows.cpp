// Samples of ops that work row by row: some rows of all columns; of what sums over rows, some columns of all
// rows.
#include <algorithm>

#include "tools/bench/check.h"

namespace mimo::bench {
namespace {

constexpr int64_t kColumns = 64;

// A block of neighbouring columns, the last ones.
struct Columns {
  int64_t first, count;
  explicit Columns(int64_t n) : first(std::max<int64_t>(0, n - kColumns)), count(n - first) {}
};

// Which of n elements in a row are looked at: as rows of a matrix of one column.
Picks elements(int64_t n) {
  Picks p;
  for (int64_t i : some(n)) p.push_back(i);
  for (int64_t i = std::max<int64_t>(0, n / 2 - 100); i < std::min(n, n / 2 + 100); ++i) p.push_back(i);
  std::sort(p.begin(), p.end());
  p.erase(std::unique(p.begin(), p.end()), p.end());
  return p;
}

int64_t count(const Picks& p) { return static_cast<int64_t>(p.size()); }

}  // namespace

template <class U, class T>
static RmsNormInputs<U> inputs(Part<U>& m, const RmsNormInputs<T>& in, const Picks& r, int64_t at, int n) {
  return {.rows = count(r), .cols = n, .x = m.in(in.x.from_column(at), r, n), .w = m.in(in.w + at, n)};
}

template <class T>
void sample(Check& c, const RmsNorm<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return RmsNorm<U>{.in = inputs(m, op.in, r, 0, op.in.cols),
                      .eps = op.eps,
                      .y = m.out("y", op.y, r, op.in.cols),
                      .r = m.acc_out("r", op.r, r)};
  });
}

template <class T>
void sample(Check& c, const RmsNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return RmsNormBackward<U>{.in = inputs(m, op.in, r, at, n),
                                .r = m.acc(op.r, r),
                                .dy = m.in(op.dy.from_column(at), r, n),
                                .dx = rows ? m.out("dx", op.dx, r, n) : m.unused(count(r), n),
                                .dw = rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n)};
    });
  };
  part(some(op.in.rows), 0, op.in.cols, true);
  const Columns cols(op.in.cols);
  part(all(op.in.rows), cols.first, static_cast<int>(cols.count), false);
}

template <class U, class T>
static LayerNormInputs<U> inputs(Part<U>& m, const LayerNormInputs<T>& in, const Picks& r, int64_t at,
                                 int n) {
  return {.rows = count(r), .cols = n, .x = m.in(in.x.from_column(at), r, n), .w = m.in(in.w + at, n)};
}

template <class T>
void sample(Check& c, const LayerNorm<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return LayerNorm<U>{.in = inputs(m, op.in, r, 0, op.in.cols),
                        .b = m.in(op.b, op.in.cols),
                        .eps = op.eps,
                        .y = m.out("y", op.y, r, op.in.cols),
                        .mean = m.acc_out("mean", op.mean, r),
                        .rstd = m.acc_out("rstd", op.rstd, r)};
  });
}

template <class T>
void sample(Check& c, const LayerNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return LayerNormBackward<U>{.in = inputs(m, op.in, r, at, n),
                                  .mean = m.acc(op.mean, r),
                                  .rstd = m.acc(op.rstd, r),
                                  .dy = m.in(op.dy.from_column(at), r, n),
                                  .dx = rows ? m.out("dx", op.dx, r, n) : m.unused(count(r), n),
                                  .dw = rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n),
                                  .db = rows ? m.unused_acc(n) : m.acc_out("db", op.db + at, {0}, n, n)};
    });
  };
  part(some(op.in.rows), 0, op.in.cols, true);
  const Columns cols(op.in.cols);
  part(all(op.in.rows), cols.first, static_cast<int>(cols.count), false);
}

template <class U, class T>
static GatedNormInputs<U> inputs(Part<U>& m, const GatedNormInputs<T>& in, const Picks& r, int64_t at, int n,
                                 int groups) {
  return {.rows = count(r),
          .cols = n,
          .groups = groups,
          .y = m.in(in.y.from_column(at), r, n),
          .z = m.in(in.z.from_column(at), r, n),
          .w = m.in(in.w + at, n)};
}

template <class T>
void sample(Check& c, const GatedNorm<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return GatedNorm<U>{.in = inputs(m, op.in, r, 0, op.in.cols, op.in.groups),
                        .eps = op.eps,
                        .out = m.out("out", op.out, r, op.in.cols),
                        .r = m.acc_out("r", op.r, r, op.in.groups, op.in.groups)};
  });
}

template <class T>
void sample(Check& c, const GatedNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, int group, int groups, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return GatedNormBackward<U>{.in = inputs(m, op.in, r, at, n, groups),
                                  .r = m.acc(op.r + group, r, groups, op.in.groups),
                                  .dout = m.in(op.dout.from_column(at), r, n),
                                  .dy = rows ? m.out("dy", op.dy, r, n) : m.unused(count(r), n),
                                  .dz = rows ? m.out("dz", op.dz, r, n) : m.unused(count(r), n),
                                  .dw = rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n)};
    });
  };
  part(some(op.in.rows), 0, op.in.cols, 0, op.in.groups, true);
  const int width = op.in.cols / op.in.groups, n = static_cast<int>(std::min<int64_t>(width, kColumns));
  part(all(op.in.rows), op.in.cols - n, n, op.in.groups - 1, 1, false);  // columns of the last group
}

template <class U, class T>
static ActivationInputs<U> inputs(Part<U>& m, const ActivationInputs<T>& in, const Picks& r) {
  return {.kind = in.kind, .rows = count(r), .cols = in.cols, .x = m.in(in.x, r, in.cols)};
}

template <class T>
void sample(Check& c, const Activation<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Activation<U>{.in = inputs(m, op.in, r), .y = m.out("y", op.y, r, op.in.cols)};
  });
}

template <class T>
void sample(Check& c, const ActivationBackward<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ActivationBackward<U>{
        .in = inputs(m, op.in, r), .dy = m.in(op.dy, r, op.in.cols), .dx = m.out("dx", op.dx, r, op.in.cols)};
  });
}

template <class U, class T>
static SwiGluInputs<U> inputs(Part<U>& m, const SwiGluInputs<T>& in, const Picks& r) {
  return {.rows = count(r), .cols = in.cols, .x = m.in(in.x, r, 2 * in.cols)};
}

template <class T>
void sample(Check& c, const SwiGlu<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SwiGlu<U>{.in = inputs(m, op.in, r), .y = m.out("y", op.y, r, op.in.cols)};
  });
}

template <class T>
void sample(Check& c, const SwiGluBackward<T>& op) {
  const Picks r = some(op.in.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SwiGluBackward<U>{.in = inputs(m, op.in, r),
                             .dy = m.in(op.dy, r, op.in.cols),
                             .dx = m.out("dx", op.dx, r, 2 * op.in.cols)};
  });
}

template <class T>
void sample(Check& c, const Rope<T>& op) {
  const Picks r = some(op.tokens);
  const int64_t n = int64_t{op.heads} * op.head_dim;
  const std::vector<double> at = fetch(op.positions, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Rope<U>{.tokens = count(r),
                   .heads = op.heads,
                   .head_dim = op.head_dim,
                   .rotary = op.rotary,
                   .theta = op.theta,
                   .positions = m.data(std::vector<int32_t>(at.begin(), at.end())),
                   .inverse = op.inverse,
                   .x = m.in(op.x, r, n),
                   .y = m.out("y", op.y, r, n)};
  });
}

template <class T>
void sample(Check& c, const Fill<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Fill<U>{.rows = count(r), .cols = op.cols, .y = m.out("y", op.y, r, op.cols), .value = op.value};
  });
}

template <class T>
void sample(Check& c, const Add<T>& op) {
  const Picks r = some(op.rows);
  const bool one_row = op.b.ld == 0;  // added to all
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Add<U>{.rows = count(r),
                  .cols = op.cols,
                  .a = m.in(op.a, r, op.cols),
                  .b = {m.in(op.b, one_row ? Picks{0} : r, op.cols).data, one_row ? 0 : op.cols},
                  .y = m.out("y", op.y, r, op.cols)};
  });
}

template <class T>
void sample(Check& c, const Copy<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Copy<U>{
        .rows = count(r), .cols = op.cols, .x = m.in(op.x, r, op.cols), .y = m.out("y", op.y, r, op.cols)};
  });
}

template <class T>
void sample(Check& c, const Scale<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Scale<U>{
        .n = count(e), .x = m.out("x", op.x, e, 1, 1), .factor = m.data(fetch_bytes(op.factor, 1))};
  });
}

template <class T>
void sample(Check& c, const ToAcc<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ToAcc<U>{
        .n = count(e), .x = m.in(op.x, e, 1, 1), .y = m.acc_out("y", op.y, e), .accumulate = op.accumulate};
  });
}

template <class T>
void sample(Check& c, const FromAcc<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return FromAcc<U>{.n = count(e), .x = m.acc(op.x, e), .y = m.out("y", op.y, e, 1, 1)};
  });
}

template <class T>
void sample(Check& c, const AddColumnSums<T>& op) {
  const Columns cols(op.cols);
  const Picks r = all(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return AddColumnSums<U>{.rows = count(r),
                            .cols = static_cast<int>(cols.count),
                            .x = m.in(op.x.from_column(cols.first), r, cols.count),
                            .y = m.acc_out("y", op.y + cols.first, {0}, cols.count, cols.count)};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyMax<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    // (Where the maximum lies is not looked at.)
    return CrossEntropyMax<U>{.rows = count(r),
                              .first = op.first,
                              .cols = op.cols,
                              .logits = m.in(op.logits, r, op.cols),
                              .max = m.acc_out("max", op.max, r)};
  });
}

template <class T>
void sample(Check& c, const CrossEntropySum<T>& op) {
  const Picks r = some(op.rows);
  const std::vector<double> labels = fetch(op.labels, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropySum<U>{.rows = count(r),
                              .first = op.first,
                              .cols = op.cols,
                              .logits = m.in(op.logits, r, op.cols),
                              .labels = m.data(std::vector<int32_t>(labels.begin(), labels.end())),
                              .max = m.acc(op.max, r),
                              .sum = m.acc_out("sum", op.sum, r),
                              .target = m.acc_out("target", op.target, r)};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyLoss<T>& op) {
  const Picks r = all(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropyLoss<U>{.rows = op.rows,
                               .labels = m.data(fetch_bytes(op.labels, op.rows)),
                               .sum = m.acc(op.sum, r),
                               .target = m.acc(op.target, r),
                               .result = m.data(fetch_bytes(op.result, 1)),
                               .value = m.acc_out("value", op.value, {0})};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyGrad<T>& op) {
  const Picks r = some(op.rows);
  const std::vector<double> labels = fetch(op.labels, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropyGrad<U>{.rows = count(r),
                               .first = op.first,
                               .cols = op.cols,
                               .logits = m.out("logits", op.logits, r, op.cols),
                               .labels = m.data(std::vector<int32_t>(labels.begin(), labels.end())),
                               .max = m.acc(op.max, r),
                               .sum = m.acc(op.sum, r),
                               .target = m.acc(op.target, r),
                               .dloss = m.acc(op.dloss, {0}),
                               .loss = m.acc_out("loss", op.loss, r)};
  });
}

#define SAMPLE(Op)                                \
  template void sample(Check&, const Op<float>&); \
  template void sample(Check&, const Op<bf16>&)
SAMPLE(RmsNorm);
SAMPLE(RmsNormBackward);
SAMPLE(LayerNorm);
SAMPLE(LayerNormBackward);
SAMPLE(GatedNorm);
SAMPLE(GatedNormBackward);
SAMPLE(Activation);
SAMPLE(ActivationBackward);
SAMPLE(SwiGlu);
SAMPLE(SwiGluBackward);
SAMPLE(Rope);
SAMPLE(Fill);
SAMPLE(Add);
SAMPLE(Copy);
SAMPLE(Scale);
SAMPLE(ToAcc);
SAMPLE(FromAcc);
SAMPLE(AddColumnSums);
SAMPLE(CrossEntropyMax);
SAMPLE(CrossEntropySum);
SAMPLE(CrossEntropyLoss);
SAMPLE(CrossEntropyGrad);

}  // namespace mimo::bench
