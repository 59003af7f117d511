#include "kernels/ssd.h"

#include "kernels/cpu/ssd_tiles.h"
#include "kernels/cpu/threads.h"

namespace mimo {
namespace {

using cpu::Band;
using cpu::DecaySums;
using cpu::SsdTask;
using cpu::SsdTiles;

// One thread's tiles.
template <class A>
struct Tiles {
  A *b_QN, *b_NQ, *c_QN, *cb_QQ, *w_QQ, *x_QP, *y_QP, *dt, *to_end, *from_start, *state_HNP;
  DecaySums<A> s;
  Tiles(Scratch& m, const SsdTiles<A>& t)
      : b_QN(m.take<A>(t.q * t.np)),
        b_NQ(m.take<A>(t.n * t.qp)),
        c_QN(m.take<A>(t.q * t.np)),
        cb_QQ(m.take<A>(t.q * t.qp)),
        w_QQ(m.take<A>(t.q * t.qp)),
        x_QP(m.take<A>(t.q * t.pp)),
        y_QP(m.take<A>(t.q * t.pp)),
        dt(m.take<A>(t.qp)),
        to_end(m.take<A>(t.qp)),
        from_start(m.take<A>(t.qp)),
        state_HNP(m.take<A>(int64_t{t.block} * t.n * t.pp)),
        s(m, t.qp) {}
};

// w_ij = cb_ij exp(s_i - s_j) for j <= i, and zeros as far beyond the diagonal as gemm reads.
template <class A>
void mask_decay(int rows, int ld, const DecaySums<A>& s, const A* cb, A* w) {
  for (int i = 0; i < rows; ++i, cb += ld, w += ld) {
    const int width = std::min(ld, cpu::padded<A>(i + tile::band_margin));
    for (int j = 0; j < width; j += lanes<A>) {
      const Vec<A> l = s.decay(Vec<A>{} + s.high[i], Vec<A>{} + s.low[i], load(s.high + j), load(s.low + j));
      store(w + j, cpu::Indices<A>().v <= i - j ? load(cb + j) * l : Vec<A>{});
    }
  }
}

template <class T>
class Forward {
  using A = acc_t<T>;
  const Ssd<T>& op;
  const SsdTiles<A>& t;
  Tiles<A> m;

 public:
  Forward(const Ssd<T>& o, const SsdTiles<A>& tiles, Scratch& scratch) : op(o), t(tiles), m(scratch, tiles) {}

  void operator()(const SsdTask& task) {
    const int64_t first = op.in.cu[task.sequence], state_size = int64_t{t.p} * t.n;
    const cpu::Chunks chunks(op.in.cu[task.sequence + 1] - op.in.cu[task.sequence], t.q);
    const auto state_at = [&](auto* states, int h) {
      return states ? states + (int64_t{task.sequence} * op.in.heads + task.first_head + h) * state_size
                    : nullptr;
    };
    bool carry = op.in.state_in;  // is there a state yet?
    if (carry || op.state_out)
      for (int h = 0; h < task.heads; ++h) load_state(t, state_at(op.in.state_in, h), state(h));
    for (int c = 0; c < chunks.count; ++c) {
      const int64_t row = first + chunks.begin(c);
      const int rows = chunks.rows(c);
      const bool pass = op.state_out || c + 1 < chunks.count;
      load_group(row, rows, task.group);
      for (int h = 0; h < task.heads; ++h) head(row, rows, task.first_head + h, carry, pass, state(h));
      carry = pass;
    }
    if (op.state_out)
      for (int h = 0; h < task.heads; ++h) store_state(t, state(h), state_at(op.state_out, h));
  }

 private:
  A* state(int h) { return m.state_HNP + int64_t{h} * t.n * t.pp; }

  void load_group(int64_t row, int rows, int g) {
    const int width = cpu::padded<A>(rows);
    cpu::load_tile(rows, t.n, op.in.b[row] + int64_t{g} * t.n, op.in.b.ld, m.b_QN, t.np);
    cpu::load_tile(rows, t.n, op.in.c[row] + int64_t{g} * t.n, op.in.c.ld, m.c_QN, t.np);
    cpu::transpose_tile(rows, t.n, m.b_QN, t.np, m.b_NQ, width);
    tile::product<false, false>(rows, width, t.n, m.c_QN, t.np, m.b_NQ, width, m.cb_QQ, width, Band::full,
                                Band::lower);
  }

  void head(int64_t row, int rows, int h, bool carry, bool pass, A* state_NP) {
    const int width = cpu::padded<A>(rows);
    cpu::time_steps(op.in, row, rows, h, m.dt, static_cast<A*>(nullptr));
    m.s.set(rows, width, -std::exp(double(op.in.a_log[h])), m.dt);
    if (carry || pass) m.s.weights(width, m.to_end, m.from_start);
    cpu::load_tile(rows, t.p, op.in.x[row] + int64_t{h} * t.p, op.in.x.ld, m.x_QP, t.pp);

    // y = exp(s) H C + D x, and then x becomes dt x.
    if (carry) tile::product<false, false>(rows, t.pp, t.n, m.c_QN, t.np, state_NP, t.pp, m.y_QP, t.pp);
    for (int i = 0; i < rows; ++i) {
      A *x = m.x_QP + i * t.pp, *y = m.y_QP + i * t.pp;
      const A d = op.in.d[h], dt = m.dt[i], e = m.from_start[i];
#pragma omp simd
      for (int p = 0; p < t.pp; ++p) {
        y[p] = carry ? e * y[p] + d * x[p] : d * x[p];
        x[p] *= dt;
      }
    }
    mask_decay(rows, width, m.s, m.cb_QQ, m.w_QQ);
    tile::product<false, true>(rows, t.pp, rows, m.w_QQ, width, m.x_QP, t.pp, m.y_QP, t.pp, Band::lower);
    cpu::store_tile(rows, t.p, m.y_QP, t.pp, op.y[row] + int64_t{h} * t.p, op.y.ld);
    if (!pass) return;
    cpu::scale_rows(rows, t.pp, m.to_end, m.x_QP);
    update_state(t, rows, carry ? m.from_start[rows - 1] : A(0), m.b_QN, m.x_QP, state_NP);
  }
};

}  // namespace

template <class T>
int64_t workspace(const Cpu&, const Ssd<T>& op) {
  using A = acc_t<T>;
  cpu::check_ssd(op.in);
  Scratch thread, all;
  Tiles<A>(thread, SsdTiles<A>(op.in));
  all.take<int32_t>(op.in.sequences);
  all.take<char>(thread.bytes() * thread_count());
  return all.bytes();
}

template <class T>
void run(const Cpu& cpu, const Ssd<T>& op) {
  using A = acc_t<T>;
  cpu::check_ssd(op.in);
  const SsdTiles<A> tiles(op.in);
  Scratch all(cpu.ws), thread;
  Tiles<A>(thread, tiles);
  auto* order = all.take<int32_t>(op.in.sequences);
  char* memory = all.take<char>(thread.bytes() * thread_count());
  cpu::order_by_length(op.in.sequences, op.in.cu, order);
  parallel_tasks(tiles.tasks, cpu::ssd_work(op.in), [&](int id, auto&& loop) {
    const cpu::FlushSubnormals flush;
    Scratch scratch = cpu::thread_scratch(memory, thread.bytes(), id);
    Forward<T> forward(op, tiles, scratch);
    loop([&](int64_t i) { forward(SsdTask(op.in, tiles, order, i)); });
  });
}

MIMO_CPU_KERNEL(Ssd);
MIMO_CPU_WORKSPACE(Ssd);

}  // namespace mimo
