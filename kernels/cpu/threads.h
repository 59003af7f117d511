// How the CPU kernels use threads: small work stays on one, and no result depends on how many there are.
//
// The threads are kept between regions. One that has nothing to do looks for work for about as long as waking
// it would take, then sleeps. Work is handed out piece by piece, to the calling thread too: it ends a region
// alone where no other comes. A thread that finds another program on its core sleeps at once for a while.
#pragma once
#include <algorithm>
#include <atomic>

#include "kernels/kernel.h"

namespace mimo {

// Threads of a region, the calling one included; at first the default: OMP_NUM_THREADS, or one a core of the
// affinity mask. The threads run where the caller of the first region after set_thread_count may.
int default_thread_count();
int thread_count();
void set_thread_count(int n);

// While it lives, regions of this thread run on this thread alone. A region within a region does too.
class Serial {
 public:
  Serial();
  ~Serial();
  Serial(const Serial&) = delete;
  Serial& operator=(const Serial&) = delete;

 private:
  bool before_;
};

// Work that moves fewer bytes than this stays on one thread: calling the others costs more.
constexpr int64_t kThreadBytes = 32 << 10;

// Indices [0, n), a share for each thread: the same rows of one kernel after the other stay in its core's
// cache. A thread takes pieces of its own share, which shrink towards the end, then of the others'. Or in
// order: one by one in rising order, whichever thread comes.
class Pieces {
 public:
  Pieces(int64_t n, int64_t smallest, bool in_order, int threads)
      : smallest_(in_order ? 1 : smallest),
        largest_(in_order ? 1 : INT64_MAX),
        shares_(in_order ? 1 : std::min(threads, kMostShares)) {
    for (int i = 0; i < shares_; ++i) {
      share_[i].next.store(n * i / shares_, std::memory_order_relaxed);
      share_[i].end = n * (i + 1) / shares_;
    }
  }
  // The next piece is [begin, end); false where there is none.
  bool take(int thread, int64_t& begin, int64_t& end) {
    for (int i = 0; i < shares_; ++i)
      if (share_[(thread + i) % shares_].take(smallest_, largest_, begin, end)) return true;
    return false;
  }
  void stop() {
    for (int i = 0; i < shares_; ++i) share_[i].next.store(share_[i].end, std::memory_order_relaxed);
  }

 private:
  static constexpr int kMostShares = 64;
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
    bool take(int64_t smallest, int64_t largest, int64_t& from, int64_t& to) {
      from = next.load(std::memory_order_relaxed);
      do {
        if (from >= end) return false;
        to = std::min(end, from + std::clamp((end - from) / 2, smallest, largest));
      } while (!next.compare_exchange_weak(from, to, std::memory_order_relaxed));
      return true;
    }
  };
  const int64_t smallest_, largest_;
  const int shares_;
  Share share_[kMostShares];
};

namespace pool {
using Body = void (*)(void* context, int thread, Pieces&);
bool is_serial();
// Calls body on this thread, and on the others that come; returns when all have. What one throws is thrown
// here, and ends the handing out.
void run(Pieces&, Body, void* context);
}  // namespace pool

// Calls each(thread, loop) on every thread that takes part, thread in [0, thread_count()); loop(f) calls f(i)
// for its share of [0, n). For what a thread sets up once.  bytes: what the whole moves, or as many as it
// could move in the time it takes; in_order: an index is handed out after all before it, so that one may wait
// for those.
template <class F>
void parallel_tasks(int64_t n, int64_t bytes, F&& each, bool in_order = false) {
  if (n <= 1 || bytes < kThreadBytes || thread_count() == 1 || pool::is_serial()) {
    each(0, [n](auto&& f) {
      for (int64_t i = 0; i < n; ++i) f(i);
    });
    return;
  }
  Pieces pieces(n, std::max<int64_t>(1, n * (kThreadBytes / 4) / bytes), in_order, thread_count());
  const auto body = [](void* context, int thread, Pieces& p) {
    (*static_cast<std::remove_reference_t<F>*>(context))(thread, [&p, thread](auto&& f) {
      for (int64_t begin, end; p.take(thread, begin, end);)
        for (int64_t i = begin; i < end; ++i) f(i);
    });
  };
  pool::run(pieces, body, const_cast<void*>(static_cast<const void*>(&each)));
}

// Calls f(i) for i in [0, n), on all threads where it moves enough bytes.
template <class F>
void parallel_for(int64_t n, int64_t bytes, F&& f) {
  parallel_tasks(n, bytes, [&f](int, auto&& loop) { loop(f); });
}

// Cuts n items into the blocks of a two-stage sum: first within each block, then over blocks in order. The
// cut is a function of n alone, and so are the bits of the sum.
struct Blocks {
  int64_t n, size, count;
  explicit Blocks(int64_t items, int64_t min_size = 32, int64_t max_count = 64)
      : n(items),
        size(std::max(min_size, (items + max_count - 1) / max_count)),
        count((items + size - 1) / size) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t end(int64_t i) const { return std::min(n, (i + 1) * size); }
};

// Second stage over columns: y[c] += sum over blocks b, in order, of partial[b * ld + c].
template <class A>
void add_partial_sums(int64_t blocks, int64_t cols, const A* partial, int64_t ld, A* y) {
  constexpr int64_t kCols = 256;
  parallel_for((cols + kCols - 1) / kCols, blocks * cols * int64_t{sizeof(A)}, [&](int64_t i) {
    const int64_t begin = i * kCols, n = std::min(kCols, cols - begin);
    A sum[kCols] = {};
    for (int64_t b = 0; b < blocks; ++b) {
      const A* p = partial + b * ld + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) sum[c] += p[c];
    }
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) y[begin + c] += sum[c];
  });
}

// Calls f(row, begin, end) on spans of columns that cover [rows, cols]. Rows that lie end to end in every
// operand (dense) are cut as one long row. bytes: what the whole call moves.
template <class F>
void for_each_span(int64_t rows, int64_t cols, bool dense, int64_t bytes, F&& f) {
  constexpr int64_t kSpan = 2048;
  if (rows == 0 || cols == 0) return;
  if (dense) cols *= rows, rows = 1;
  const int64_t spans = (cols + kSpan - 1) / kSpan;
  parallel_for(rows * spans, bytes, [&](int64_t i) {
    const int64_t row = i / spans, begin = (i - row * spans) * kSpan;
    f(row, begin, std::min(cols, begin + kSpan));
  });
}

// Calls f(tensor, begin, end, number) on the spans, at most `span` long and numbered in order, of tensors of
// size(tensor) elements each.
template <class Size, class F>
void for_each_span_of(int tensors, Size&& size, int64_t span, int64_t bytes, F&& f) {
  const auto spans = [&](int tensor) { return (size(tensor) + span - 1) / span; };
  int64_t count = 0;
  for (int i = 0; i < tensors; ++i) count += spans(i);
  parallel_tasks(count, bytes, [&](int, auto&& loop) {
    int tensor = 0;
    int64_t first = 0;  // its first span's number
    loop([&](int64_t number) {
      if (number < first) tensor = 0, first = 0;  // of another thread's share
      while (number >= first + spans(tensor)) first += spans(tensor++);
      const int64_t begin = (number - first) * span;
      f(tensor, begin, std::min(size(tensor), begin + span), number);
    });
  });
}

// Asks for x[0..n) ahead of a long loop over what lies before it: between long computations the hardware
// alone keeps too few lines in flight.
template <class T>
void prefetch(const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / int64_t{sizeof(T)}) __builtin_prefetch(x + i, 0, 2);
}

// Which image a packed row belongs to, by its first rows cu[0..images]; scale: rows of cu per row here.
inline int image_of(int64_t row, const int32_t* cu, int images, int64_t scale = 1) {
  return static_cast<int>(std::upper_bound(cu, cu + images + 1, row * scale) - cu) - 1;
}

}  // namespace mimo
