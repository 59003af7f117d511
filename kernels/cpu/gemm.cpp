// C is cut into blocks, each computed by one thread, a panel of at most three vectors of columns after the
// other: kDepth rows of op(B) are packed to the panel's width and stay in L1 while the rows of op(A) pass.
// The products of an element are summed in order of k, each kDepth of them from zero, and those sums are
// added in order, to C first if alpha and beta are 1. So the bits of an element depend on its row of op(A),
// its column of op(B) and k, not on m, n, the cut or the number of threads. (Few rows of A are another sum:
// few_rows.h.)
//
// A library's product packs for every call. Here a block more costs little, so that even small products are
// cut finely enough for cores of unequal speed (benchmarks/cpu.md compares oneDNN).
#include "kernels/gemm.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/threads.h"
#include "kernels/cpu/tile.h"
#include "kernels/portable/scratch.h"

namespace mimo {
namespace {

// A packed panel has at most kDepth rows, 36 KB with AVX-512 and 18 KB with AVX2; a block has fewer than
// kRows + kStep rows, of which kDepth columns fit L2, and at most kPanels panels.
constexpr int64_t kDepth = 192, kRows = 192, kPanels = 4;
constexpr int64_t kStep = 24;            // whole register blocks of two and of three vectors
constexpr int64_t kWork = 1 << 17;       // multiply-adds of a block that are worth a thread: 3 us of one core
constexpr int64_t kBlocksOfAThread = 8;  // so that those of a slow core are taken by others
constexpr int64_t kFar = 512;            // elements between rows of A from which, transposed, it is copied

// Rows [row, row + rows) of C, and panels [begin, end) of its columns.
struct Block {
  int64_t row, rows, begin, end;
};

template <class A>
class Grid {
 public:
  Grid(bool trans_b, int64_t m, int64_t n, int64_t k)
      : m_(m), n_(n), vectors_((n + lanes<A> - 1) / lanes<A>), panels_((vectors_ + 2) / 3) {
    const int64_t threads = thread_count();
    const int64_t wanted = threads == 1 ? 1 : std::min(kBlocksOfAThread * threads, m * n * k / kWork);
    // A share of the rows for each thread: those of the kernel before lie in its core's cache. Then panels,
    // as cutting between them packs nothing twice, then more rows.
    down_ = std::max((m + kRows - 1) / kRows, std::min({threads, wanted, m / (2 * kStep)}));
    across_ = std::max((panels_ + kPanels - 1) / kPanels, std::min(panels_, (wanted + down_ - 1) / down_));
    const int64_t enough_rows = trans_b ? 4 * kStep : kStep;  // for transposing a panel, for copying it
    down_ = std::max(down_, std::min(m / enough_rows, (wanted + across_ - 1) / across_));
  }
  int64_t count() const { return down_ * across_; }
  Block operator[](int64_t i) const {
    const int64_t r = i / across_, c = i % across_, begin = row(r);
    return {begin, row(r + 1) - begin, panels_ * c / across_, panels_ * (c + 1) / across_};
  }
  // First column of a panel.
  int64_t column(int64_t panel) const { return std::min(n_, vectors_ * panel / panels_ * lanes<A>); }

 private:
  int64_t row(int64_t i) const { return i == down_ ? m_ : m_ * i / down_ / kStep * kStep; }
  int64_t m_, n_, vectors_, panels_, down_, across_;
};

// Whether op(A) has so few rows that op(B) is multiplied where it lies.
template <class Op>
bool has_few_rows(const Op& op) {
  return !op.trans_a && op.trans_b && op.m <= few_rows::kMost;
}
// Whether op(A) is converted, or its rows brought together.
template <class A, class Op>
bool copies_a(const Op& op) {
  return !std::is_same_v<decltype(op.a.data), const A*> || (op.trans_a && op.a.ld > kFar);
}
// Whether the sums of a block are C itself.
template <class A, class Op>
bool sums_in_c(const Op& op) {
  return std::is_same_v<decltype(op.c.data), A*> && op.n % lanes<A> == 0 && op.k > 0 && op.alpha == 1 &&
         (op.beta == 0 || op.beta == 1);
}

// What a thread packs for a block, and its sums.
template <class A>
struct Buffers {
  A *panel, *a, *b, *c;
  template <class Op>
  Buffers(const Op& op, Scratch& scratch) {
    constexpr int64_t width = 3 * lanes<A>;
    const int64_t rows = tile::padded<A>(std::min(kRows + kStep, op.m));
    const bool packs = !has_few_rows(op);
    panel = scratch.take<A>(packs ? kDepth * width : 0);
    a = scratch.take<A>(packs && copies_a<A>(op) ? rows * kDepth : 0);
    b = scratch.take<A>(packs && op.trans_b ? width * kDepth : 0);
    c = scratch.take<A>(sums_in_c<A>(op) ? 0 : rows * kPanels * width);
  }
  template <class Op>
  static int64_t bytes(const Op& op) {
    Scratch scratch;
    Buffers(op, scratch);
    return scratch.bytes();
  }
};

// panel[depth, padded(cols)] = op(B)[p.., col..]
template <class A, class Op>
void pack(const Op& op, int64_t p, int64_t depth, int64_t col, int64_t cols, const Buffers<A>& t) {
  if (!op.trans_b) return tile::load_rows<false>(depth, cols, op.b[p] + col, op.b.ld, t.panel);
  const auto* b = op.b[col] + p;
  const int64_t width = tile::padded<A>(cols), padded = tile::padded<A>(depth);
  if constexpr (std::is_same_v<decltype(b), const A*>)
    if (cols == width && depth == padded) return tile::transpose(cols, depth, b, op.b.ld, t.panel, width);
  tile::load_rows<true>(cols, depth, b, op.b.ld, t.b);
  tile::transpose(width, padded, t.b, padded, t.panel, width);
}

// c[m, n] = op(A)[m, k] panel[k, n] (+ c if add), n whole vectors
template <class A>
void multiply(bool trans_a, int64_t m, int64_t n, int64_t k, const A* a, int64_t a_ld, const A* panel,
              bool add, A* c, int64_t c_ld) {
  if (trans_a)
    add ? tile::product<true, true>(m, n, k, a, a_ld, panel, n, c, c_ld)
        : tile::product<true, false>(m, n, k, a, a_ld, panel, n, c, c_ld);
  else
    add ? tile::product<false, true>(m, n, k, a, a_ld, panel, n, c, c_ld)
        : tile::product<false, false>(m, n, k, a, a_ld, panel, n, c, c_ld);
}

// y = alpha sum + beta y + bias
template <class A, class C, class T>
void finish_row(int64_t n, A alpha, const A* sum, A beta, const T* bias, C* y) {
  const auto each = [&](auto&& f) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) y[j] = f(j);
  };
  if (beta != 0)
    each([&](int64_t j) {
      return alpha * sum[j] + beta * static_cast<A>(y[j]) + (bias ? static_cast<A>(bias[j]) : 0);
    });
  else if (bias)
    each([&](int64_t j) { return alpha * sum[j] + static_cast<A>(bias[j]); });
  else
    each([&](int64_t j) { return alpha * sum[j]; });
}

// sums[rows, ld] (+)= op(A) op(B) on a block, if its products are packed.
template <class A, class Op>
void add_products(const Op& op, const Grid<A>& grid, const Block& at, const Buffers<A>& t, bool add, A* sums,
                  int64_t ld) {
  for (int64_t p = 0; p < op.k; p += kDepth, add = true) {
    const int64_t depth = std::min(kDepth, op.k - p);
    const auto* from = op.trans_a ? op.a[p] + at.row : op.a[at.row] + p;
    const int64_t a_rows = op.trans_a ? depth : at.rows, a_cols = op.trans_a ? at.rows : depth;
    const A* a = t.a;
    int64_t a_ld = tile::padded<A>(a_cols);
    if (copies_a<A>(op)) {
      tile::load_rows<false>(a_rows, a_cols, from, op.a.ld, t.a);
    } else if constexpr (std::is_same_v<decltype(from), const A*>) {
      a = from, a_ld = op.a.ld;
    }
    for (int64_t i = at.begin; i < at.end; ++i) {
      const int64_t col = grid.column(i), cols = grid.column(i + 1) - col;
      pack(op, p, depth, col, cols, t);
      multiply(op.trans_a, at.rows, tile::padded<A>(cols), depth, a, a_ld, t.panel, add,
               sums + (col - grid.column(at.begin)), ld);
    }
  }
}

template <class A, class Op, class T>
void compute_block(const Op& op, const T* bias, const Grid<A>& grid, const Block& at, const Buffers<A>& t) {
  const bool in_c = sums_in_c<A>(op), begin_with_c = op.alpha == 1 && op.beta == 1;
  const int64_t col = grid.column(at.begin), cols = grid.column(at.end) - col;
  auto* c = op.c[at.row] + col;
  A* sums = t.c;
  int64_t ld = tile::padded<A>(cols);
  if constexpr (std::is_same_v<decltype(c), A*>)
    if (in_c) sums = c, ld = op.c.ld;
  if (begin_with_c && !in_c)
    tile::load_rows<false>(at.rows, cols, c, op.c.ld, sums);
  else if (op.k == 0)
    std::fill(sums, sums + at.rows * ld, A(0));
  if (op.k > 0 && has_few_rows(op))
    few_rows::multiply(at.rows, cols, op.k, op.a[at.row], op.a.ld, op.b[col], op.b.ld, begin_with_c, sums,
                       ld);
  else
    add_products(op, grid, at, t, begin_with_c, sums, ld);
  if (in_c && !bias) return;
  for (int64_t i = 0; i < at.rows; ++i)
    finish_row(cols, in_c ? 1 : op.alpha, sums + i * ld, in_c || begin_with_c ? 0 : op.beta,
               bias ? bias + col : nullptr, c + i * op.c.ld);
}

void check_stride(const char* matrix, int64_t ld, int64_t columns) {
  if (ld < columns)
    throw std::invalid_argument(std::string("product of matrices: rows of ") + matrix + " have " +
                                std::to_string(columns) + " elements, found a stride of " +
                                std::to_string(ld));
}

template <class A, class Op, class T>
void compute(const Cpu& cpu, const Op& op, const T* bias) {
  if (op.m == 0 || op.n == 0) return;
  check_stride("A", op.a.ld, op.trans_a ? op.m : op.k);
  check_stride("B", op.b.ld, op.trans_b ? op.k : op.n);
  check_stride("C", op.c.ld, op.n);
  const int64_t bytes = Buffers<A>::bytes(op);
  Scratch scratch(cpu.ws);
  char* buffers = scratch.take<char>(thread_count() * bytes);
  const Grid<A> grid(op.trans_b, op.m, op.n, op.k);
  parallel_tasks(grid.count(), op.m * op.n * op.k / 2, [&](int thread, auto&& loop) {
    Scratch mine(Workspace{buffers + thread * bytes, bytes});
    const Buffers<A> t(op, mine);
    loop([&](int64_t i) { compute_block(op, bias, grid, grid[i], t); });
  });
}

template <class A, class Op>
int64_t workspace_of(const Op& op) {
  Scratch scratch;
  scratch.take<char>(thread_count() * Buffers<A>::bytes(op));
  return scratch.bytes();
}

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const Gemm<T>& op) {
  return workspace_of<acc_t<T>>(op);
}
template <class T>
int64_t workspace(const Cpu&, const GemmAccumulate<T>& op) {
  return workspace_of<acc_t<T>>(op);
}

template <class T>
void run(const Cpu& cpu, const Gemm<T>& op) {
  compute<acc_t<T>>(cpu, op, op.bias);
}
template <class T>
void run(const Cpu& cpu, const GemmAccumulate<T>& op) {
  compute<acc_t<T>>(cpu, op, static_cast<const T*>(nullptr));
}

MIMO_CPU_KERNEL(Gemm);
MIMO_CPU_KERNEL(GemmAccumulate);
MIMO_CPU_WORKSPACE(Gemm);
MIMO_CPU_WORKSPACE(GemmAccumulate);

}  // namespace mimo
