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

template <class T>
void sample(Check& c, const RmsNorm<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return RmsNorm<U>{count(r),
                      op.cols,
                      m.in(op.x, r, op.cols, op.x_ld),
                      op.cols,
                      m.in(op.w, op.cols),
                      op.eps,
                      m.out("y", op.y, r, op.cols, op.y_ld),
                      op.cols,
                      m.acc_out("r", op.r, r)};
  });
}

template <class T>
void sample(Check& c, const RmsNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return RmsNormBackward<U>{count(r),
                                n,
                                m.in(op.x + at, r, n, op.x_ld),
                                n,
                                m.in(op.w + at, n),
                                m.acc(op.r, r),
                                m.in(op.dy + at, r, n, op.dy_ld),
                                n,
                                rows ? m.out("dx", op.dx, r, n, op.dx_ld) : m.unused(count(r) * n),
                                n,
                                rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n)};
    });
  };
  part(some(op.rows), 0, op.cols, true);
  const Columns cols(op.cols);
  part(all(op.rows), cols.first, static_cast<int>(cols.count), false);
}

template <class T>
void sample(Check& c, const LayerNorm<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return LayerNorm<U>{count(r),
                        op.cols,
                        m.in(op.x, r, op.cols, op.x_ld),
                        op.cols,
                        m.in(op.w, op.cols),
                        m.in(op.b, op.cols),
                        op.eps,
                        m.out("y", op.y, r, op.cols, op.y_ld),
                        op.cols,
                        m.acc_out("mean", op.mean, r),
                        m.acc_out("rstd", op.rstd, r)};
  });
}

template <class T>
void sample(Check& c, const LayerNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return LayerNormBackward<U>{count(r),
                                  n,
                                  m.in(op.x + at, r, n, op.x_ld),
                                  n,
                                  m.in(op.w + at, n),
                                  m.acc(op.mean, r),
                                  m.acc(op.rstd, r),
                                  m.in(op.dy + at, r, n, op.dy_ld),
                                  n,
                                  rows ? m.out("dx", op.dx, r, n, op.dx_ld) : m.unused(count(r) * n),
                                  n,
                                  rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n),
                                  rows ? m.unused_acc(n) : m.acc_out("db", op.db + at, {0}, n, n)};
    });
  };
  part(some(op.rows), 0, op.cols, true);
  const Columns cols(op.cols);
  part(all(op.rows), cols.first, static_cast<int>(cols.count), false);
}

template <class T>
void sample(Check& c, const GatedNorm<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return GatedNorm<U>{count(r),  op.cols,
                        op.groups, m.in(op.y, r, op.cols, op.y_ld),
                        op.cols,   m.in(op.z, r, op.cols, op.z_ld),
                        op.cols,   m.in(op.w, op.cols),
                        op.eps,    m.out("out", op.out, r, op.cols, op.out_ld),
                        op.cols,   m.acc_out("r", op.r, r, op.groups, op.groups)};
  });
}

template <class T>
void sample(Check& c, const GatedNormBackward<T>& op) {
  const auto part = [&](const Picks& r, int64_t at, int n, int group, int groups, bool rows) {
    c.expect<T>([&]<class U>(Part<U>& m) {
      return GatedNormBackward<U>{count(r),
                                  n,
                                  groups,
                                  m.in(op.y + at, r, n, op.y_ld),
                                  n,
                                  m.in(op.z + at, r, n, op.z_ld),
                                  n,
                                  m.in(op.w + at, n),
                                  m.acc(op.r + group, r, groups, op.groups),
                                  m.in(op.dout + at, r, n, op.dout_ld),
                                  n,
                                  rows ? m.out("dy", op.dy, r, n, op.dy_ld) : m.unused(count(r) * n),
                                  n,
                                  rows ? m.out("dz", op.dz, r, n, op.dz_ld) : m.unused(count(r) * n),
                                  n,
                                  rows ? m.unused_acc(n) : m.acc_out("dw", op.dw + at, {0}, n, n)};
    });
  };
  part(some(op.rows), 0, op.cols, 0, op.groups, true);
  const int width = op.cols / op.groups, n = static_cast<int>(std::min<int64_t>(width, kColumns));
  part(all(op.rows), op.cols - n, n, op.groups - 1, 1, false);  // columns of the last group
}

template <class T>
void sample(Check& c, const Activation<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Activation<U>{op.kind, count(r),
                         op.cols, m.in(op.x, r, op.cols, op.x_ld),
                         op.cols, m.out("y", op.y, r, op.cols, op.y_ld),
                         op.cols};
  });
}

template <class T>
void sample(Check& c, const ActivationBackward<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ActivationBackward<U>{op.kind, count(r),
                                 op.cols, m.in(op.x, r, op.cols, op.x_ld),
                                 op.cols, m.in(op.dy, r, op.cols, op.dy_ld),
                                 op.cols, m.out("dx", op.dx, r, op.cols, op.dx_ld),
                                 op.cols};
  });
}

template <class T>
void sample(Check& c, const SwiGlu<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SwiGlu<U>{count(r),
                     op.cols,
                     m.in(op.x, r, 2 * op.cols, op.x_ld),
                     2 * op.cols,
                     m.out("y", op.y, r, op.cols, op.y_ld),
                     op.cols};
  });
}

template <class T>
void sample(Check& c, const SwiGluBackward<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return SwiGluBackward<U>{count(r),
                             op.cols,
                             m.in(op.x, r, 2 * op.cols, op.x_ld),
                             2 * op.cols,
                             m.in(op.dy, r, op.cols, op.dy_ld),
                             op.cols,
                             m.out("dx", op.dx, r, 2 * op.cols, op.dx_ld),
                             2 * op.cols};
  });
}

template <class T>
void sample(Check& c, const Rope<T>& op) {
  const Picks r = some(op.tokens);
  const int64_t n = int64_t{op.heads} * op.head_dim;
  const std::vector<double> at = fetch(op.positions, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Rope<U>{count(r),
                   op.heads,
                   op.head_dim,
                   op.rotary,
                   op.theta,
                   m.data(std::vector<int32_t>(at.begin(), at.end())),
                   op.inverse,
                   m.in(op.x, r, n, op.x_ld),
                   n,
                   m.out("y", op.y, r, n, op.y_ld),
                   n};
  });
}

template <class T>
void sample(Check& c, const Fill<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Fill<U>{count(r), op.cols, m.out("y", op.y, r, op.cols, op.y_ld), op.cols, op.value};
  });
}

template <class T>
void sample(Check& c, const Add<T>& op) {
  const Picks r = some(op.rows);
  const Picks of_b = op.b_ld == 0 ? Picks{0} : r;  // one row, added to all
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Add<U>{count(r),
                  op.cols,
                  m.in(op.a, r, op.cols, op.a_ld),
                  op.cols,
                  m.in(op.b, of_b, op.cols, op.b_ld),
                  op.b_ld == 0 ? 0 : op.cols,
                  m.out("y", op.y, r, op.cols, op.y_ld),
                  op.cols};
  });
}

template <class T>
void sample(Check& c, const Copy<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Copy<U>{
        count(r), op.cols, m.in(op.x, r, op.cols, op.x_ld), op.cols, m.out("y", op.y, r, op.cols, op.y_ld),
        op.cols};
  });
}

template <class T>
void sample(Check& c, const Scale<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return Scale<U>{count(e), m.out("x", op.x, e, 1, 1), m.data(fetch_bytes(op.factor, 1))};
  });
}

template <class T>
void sample(Check& c, const ToAcc<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return ToAcc<U>{count(e), m.in(op.x, e, 1, 1), m.acc_out("y", op.y, e), op.accumulate};
  });
}

template <class T>
void sample(Check& c, const FromAcc<T>& op) {
  const Picks e = elements(op.n);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return FromAcc<U>{count(e), m.acc(op.x, e), m.out("y", op.y, e, 1, 1)};
  });
}

template <class T>
void sample(Check& c, const AddColumnSums<T>& op) {
  const Columns cols(op.cols);
  const Picks r = all(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return AddColumnSums<U>{count(r), static_cast<int>(cols.count),
                            m.in(op.x + cols.first, r, cols.count, op.x_ld), cols.count,
                            m.acc_out("y", op.y + cols.first, {0}, cols.count, cols.count)};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyMax<T>& op) {
  const Picks r = some(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    // (Where the maximum lies is not looked at.)
    return CrossEntropyMax<U>{
        count(r), op.first, op.cols, m.in(op.logits, r, op.cols, op.ld), op.cols, m.acc_out("max", op.max, r),
        nullptr};
  });
}

template <class T>
void sample(Check& c, const CrossEntropySum<T>& op) {
  const Picks r = some(op.rows);
  const std::vector<double> labels = fetch(op.labels, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropySum<U>{count(r),
                              op.first,
                              op.cols,
                              m.in(op.logits, r, op.cols, op.ld),
                              op.cols,
                              m.data(std::vector<int32_t>(labels.begin(), labels.end())),
                              m.acc(op.max, r),
                              m.acc_out("sum", op.sum, r),
                              m.acc_out("target", op.target, r)};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyLoss<T>& op) {
  const Picks r = all(op.rows);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropyLoss<U>{op.rows,
                               m.data(fetch_bytes(op.labels, op.rows)),
                               m.acc(op.sum, r),
                               m.acc(op.target, r),
                               m.data(fetch_bytes(op.result, 1)),
                               m.acc_out("value", op.value, {0})};
  });
}

template <class T>
void sample(Check& c, const CrossEntropyGrad<T>& op) {
  const Picks r = some(op.rows);
  const std::vector<double> labels = fetch(op.labels, r, 1, 1);
  c.expect<T>([&]<class U>(Part<U>& m) {
    return CrossEntropyGrad<U>{count(r),
                               op.first,
                               op.cols,
                               m.out("logits", op.logits, r, op.cols, op.ld),
                               op.cols,
                               m.data(std::vector<int32_t>(labels.begin(), labels.end())),
                               m.acc(op.max, r),
                               m.acc(op.sum, r),
                               m.acc(op.target, r),
                               m.acc(op.dloss, {0}),
                               m.acc_out("loss", op.loss, r)};
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
