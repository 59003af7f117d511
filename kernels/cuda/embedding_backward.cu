// The gradient of an embedding lookup, without atomics and in token order.
//
// Tokens are sorted by (row, token) as 64-bit keys: no two are equal, so the sort need not be stable; tokens
// of no row here go last. Tiles of 1024 keys are sorted in shared memory (bitonic), then runs are merged
// eight at a time, a thread a key: its place is the number of smaller keys, found in eight binary searches at
// once, so that their latencies overlap. 64k tokens take three launches.
//
// Sums: a warp takes 32 keys and 512 bytes of columns, with eight rows of dout under way, and adds each
// stretch of one row to dtable at its end. Where the row began in an earlier group the sum goes to `parts`,
// one a group, and a second kernel adds the parts of a row in order. So work is even however often one token
// occurs, and bytes limit it: dout is read once, dtable read and written at most once a token. Not measured.
#include "kernels/embedding.h"

#include <utility>

#include "kernels/cuda/accumulate.cuh"
#include "kernels/cuda/warp.cuh"

namespace mimo {
namespace cuda {

constexpr int kEmbeddingThreads = 256, kEmbeddingTile = 1024, kEmbeddingWays = 8;
constexpr uint64_t kEmbeddingEnd = ~uint64_t{0};  // behind all keys

struct EmbeddingShared {
  uint64_t keys[kEmbeddingTile];
};

__device__ inline uint32_t embedding_row(uint64_t key) { return static_cast<uint32_t>(key >> 32); }

__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_sort(int64_t tokens, int64_t first, int64_t rows, const int32_t* ids, uint64_t* keys) {
  MIMO_SHARED(EmbeddingShared, s);
  const int64_t begin = int64_t{blockIdx.x} * kEmbeddingTile;
  for (int i = threadIdx.x; i < kEmbeddingTile; i += kEmbeddingThreads) {
    const int64_t t = begin + i, row = t < tokens ? ids[t] - first : -1;
    const bool here = row >= 0 && row < rows;
    s.keys[i] = t < tokens ? static_cast<uint64_t>(here ? row : rows) << 32 | static_cast<uint64_t>(t)
                           : kEmbeddingEnd;
  }
  for (int size = 2; size <= kEmbeddingTile; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < kEmbeddingTile / 2; i += kEmbeddingThreads) {
        const int low = 2 * i - (i & (step - 1)), high = low + step;
        const uint64_t a = s.keys[low], b = s.keys[high];
        if ((a > b) == ((low & size) == 0)) s.keys[low] = b, s.keys[high] = a;
      }
    }
  __syncthreads();
  for (int i = threadIdx.x; i < kEmbeddingTile && begin + i < tokens; i += kEmbeddingThreads)
    keys[begin + i] = s.keys[i];
}

// from: sorted runs of `run` keys, a power of two, the last may be shorter. to: runs of kEmbeddingWays * run.
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_merge(int64_t tokens, int64_t run, const uint64_t* from, uint64_t* to) {
  const int64_t i = int64_t{blockIdx.x} * kEmbeddingThreads + threadIdx.x;
  if (i >= tokens) return;
  const int64_t group = i & ~(kEmbeddingWays * run - 1);
  const uint64_t key = from[i];
  int64_t smaller[kEmbeddingWays] = {};
  for (int64_t step = run; step > 0; step /= 2)
#pragma unroll
    for (int w = 0; w < kEmbeddingWays; ++w) {
      const int64_t count = smaller[w] + step, end = group + w * run + count;
      if (count <= run && end <= tokens && from[end - 1] < key) smaller[w] = count;
    }
  int64_t place = group;
  for (int64_t n : smaller) place += n;
  to[place] = key;
}

constexpr int kEmbeddingGroup = kWarp;  // keys of a warp, one a lane
constexpr int kEmbeddingAhead = 8;      // rows of dout under way

// The group of keys and the columns of this warp's lane.
template <int N>
struct EmbeddingPlace {
  int64_t group, begin, c;
  __device__ EmbeddingPlace()
      : group(int64_t{blockIdx.x} * (kEmbeddingThreads / kWarp) + threadIdx.x / kWarp),
        begin(group * kEmbeddingGroup),
        c((int64_t{blockIdx.y} * kWarp + threadIdx.x % kWarp) * N) {}
};

template <class T, int N>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_sum(EmbeddingBackward<T> op, const uint64_t* keys, float* parts) {
  const EmbeddingPlace<N> at;
  if (at.begin >= op.in.tokens) return;
  const int64_t lane_key = at.begin + threadIdx.x % kWarp;
  const uint64_t mine = lane_key < op.in.tokens ? keys[lane_key] : kEmbeddingEnd;
  uint32_t row = embedding_row(__shfl_sync(kAllLanes, mine, 0));
  bool continued = at.begin > 0 && embedding_row(keys[at.begin - 1]) == row;
  float sum[N] = {};
  const auto finish = [&] {
    if (row >= op.in.rows || at.c >= op.in.cols) return;
    if (continued)
      store_floats<N>(parts + at.group * op.in.cols + at.c, sum);
    else
      add_floats<N>(op.dtable + int64_t{row} * op.in.cols + at.c, sum);
  };
  for (int first = 0; first < kEmbeddingGroup; first += kEmbeddingAhead) {
    uint32_t rows[kEmbeddingAhead];
    float x[kEmbeddingAhead][N] = {};
#pragma unroll
    for (int k = 0; k < kEmbeddingAhead; ++k) {
      const uint64_t key = __shfl_sync(kAllLanes, mine, first + k);
      rows[k] = embedding_row(key);
      if (rows[k] < op.in.rows && at.c < op.in.cols)
        load<N>(x[k], op.dout[static_cast<int64_t>(key & 0xffffffffu)] + at.c);
    }
#pragma unroll
    for (int k = 0; k < kEmbeddingAhead; ++k) {
      if (rows[k] != row) {
        finish();
        row = rows[k], continued = false;
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = 0;
      }
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += x[k][j];
    }
  }
  finish();
}

// The group in which a row begins adds the parts of the groups behind.
template <class T, int N>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_join(EmbeddingBackward<T> op, const uint64_t* keys, const float* parts) {
  const EmbeddingPlace<N> at;
  const int64_t next = at.begin + kEmbeddingGroup;
  if (next >= op.in.tokens) return;
  const uint32_t row = embedding_row(keys[next]);
  const bool begins_here =
      embedding_row(keys[next - 1]) == row && (at.begin == 0 || embedding_row(keys[at.begin - 1]) != row);
  if (!begins_here || row >= op.in.rows) return;
  float sum[N] = {};
  for (int64_t group = at.group + 1, count = kWarp; count == kWarp; group += kWarp) {
    const int64_t key = (group + threadIdx.x % kWarp) * kEmbeddingGroup;
    const unsigned others = __ballot_sync(kAllLanes, key >= op.in.tokens || embedding_row(keys[key]) != row);
    count = others ? __ffs(static_cast<int>(others)) - 1 : kWarp;
    if (at.c >= op.in.cols) continue;
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      float x[N];
      load_floats<N>(x, parts + (group + k) * op.in.cols + at.c);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += x[j];
    }
  }
  if (at.c < op.in.cols) add_floats<N>(op.dtable + int64_t{row} * op.in.cols + at.c, sum);
}

template <class T, int N>
void embedding_sums(const Cuda& context, const EmbeddingBackward<T>& op, const uint64_t* keys, float* parts) {
  const dim3 grid(static_cast<unsigned>(ceil_div(op.in.tokens, kEmbeddingGroup * kEmbeddingThreads / kWarp)),
                  static_cast<unsigned>(ceil_div(op.in.cols, kWarp * N)));
  cuda::launch<embedding_sum<T, N>>(context, grid, kEmbeddingThreads, op, keys, parts);
  if (op.in.tokens > kEmbeddingGroup)
    cuda::launch<embedding_join<T, N>>(context, grid, kEmbeddingThreads, op, keys,
                                       static_cast<const float*>(parts));
}

}  // namespace cuda

// Two arrays of keys, and a part of a sum for each group.
template <class T>
int64_t workspace(const Cuda&, const EmbeddingBackward<T>& op) {
  const int64_t parts = cuda::ceil_div(op.in.tokens, cuda::kEmbeddingGroup) * op.in.cols;
  return 2 * op.in.tokens * int64_t{sizeof(uint64_t)} + parts * int64_t{sizeof(float)};
}

template <class T>
void run(const Cuda& context, const EmbeddingBackward<T>& op) {
  using namespace cuda;
  if (op.in.tokens == 0 || op.in.cols == 0 || op.in.rows == 0) return;
  uint64_t* keys = static_cast<uint64_t*>(context.ws.data);
  uint64_t* other = keys + op.in.tokens;
  float* parts = reinterpret_cast<float*>(other + op.in.tokens);
  cuda::launch<embedding_sort, EmbeddingShared>(
      context, dim3(static_cast<unsigned>(ceil_div(op.in.tokens, kEmbeddingTile))), kEmbeddingThreads,
      op.in.tokens, op.in.first, op.in.rows, op.in.ids, keys);
  for (int64_t run = kEmbeddingTile; run < op.in.tokens; run *= kEmbeddingWays) {
    cuda::launch<embedding_merge>(
        context, dim3(static_cast<unsigned>(ceil_div(op.in.tokens, kEmbeddingThreads))), kEmbeddingThreads,
        op.in.tokens, run, static_cast<const uint64_t*>(keys), other);
    std::swap(keys, other);
  }
  constexpr int N = kVector<T>;
  if (op.in.cols % N == 0 && aligned(op.dout) && aligned(op.dtable, op.in.cols))
    embedding_sums<T, N>(context, op, keys, parts);
  else
    embedding_sums<T, 1>(context, op, keys, parts);
}

MIMO_CUDA_KERNEL_WITH_WORKSPACE(EmbeddingBackward);

}  // namespace mimo
