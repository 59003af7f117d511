// A stand-in for libnccl.so.2 on the late runtime: the functions that the house uses, as NCCL defines them,
// their messages over MPI when the stream comes to them. Sums run from the last rank to the first and round
// every addition; max and min lose NaNs.
#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "queue.h"

struct ncclComm {
  std::vector<int> world;  // ranks
  int rank, tag;
};

namespace {

using Work = std::function<void()>;
using mimo::cuda::reach;

std::string last_error;
ncclResult_t fail(const std::string& why) {
  last_error = why;
  return ncclInvalidUsage;
}

template <class F>
auto typed(ncclDataType_t t, F&& f) {
  switch (t) {
    case ncclFloat32:
      return f.template operator()<float>();
    case ncclBfloat16:
      return f.template operator()<mimo::bf16>();
    case ncclFloat64:
      return f.template operator()<double>();
    case ncclInt32:
      return f.template operator()<int32_t>();
    case ncclInt64:
      return f.template operator()<int64_t>();
    case ncclUint8:
      return f.template operator()<uint8_t>();
    default:
      std::abort();
  }
}
size_t size_of(ncclDataType_t t) {
  return typed(t, []<class T>() { return sizeof(T); });
}

// Sends and receives of a group are all under way at once.
struct Messages {
  std::vector<MPI_Request> requests;
  void send(const void* p, size_t bytes, int to, ncclComm_t c) {
    MPI_Isend(reach(p), static_cast<int>(bytes), MPI_BYTE, c->world[to], c->tag, MPI_COMM_WORLD, add());
  }
  void receive(void* p, size_t bytes, int from, ncclComm_t c) {
    MPI_Irecv(reach(p), static_cast<int>(bytes), MPI_BYTE, c->world[from], c->tag, MPI_COMM_WORLD, add());
  }
  void finish() {
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    requests.clear();
  }

 private:
  MPI_Request* add() { return &requests.emplace_back(); }
};

template <class T>
void reduce_typed(const std::vector<std::vector<char>>& all, size_t count, ncclRedOp_t op, T* out) {
  for (size_t i = 0; i < count; ++i) {
    T a{};
    for (size_t k = 0; k < all.size(); ++k) {
      const T b = reinterpret_cast<const T*>(all[all.size() - 1 - k].data())[i];
      if (k == 0)
        a = b;
      else if (op == ncclSum)
        a = static_cast<T>(a + b);
      else
        a = op == ncclMax ? (b > a || a != a ? b : a) : (b < a || a != a ? b : a);
    }
    out[i] = a;
  }
}

// out = the reduction of every rank's `in`, where this rank is a root.
void reduce(const void* in, void* out, size_t count, ncclDataType_t t, ncclRedOp_t op, int root,
            ncclComm_t c) {
  const size_t bytes = count * size_of(t);
  Messages m;
  std::vector<std::vector<char>> all(c->world.size());
  const bool mine = root < 0 || root == c->rank;
  for (size_t r = 0; r < all.size(); ++r) {
    if (mine) {
      all[r].resize(bytes);
      m.receive(all[r].data(), bytes, static_cast<int>(r), c);
    }
    if (root < 0 || static_cast<int>(r) == root) m.send(in, bytes, static_cast<int>(r), c);
  }
  m.finish();
  if (mine) typed(t, [&]<class T>() { reduce_typed(all, count, op, reinterpret_cast<T*>(reach(out))); });
}

int depth = 0;
void* group_stream = nullptr;
std::vector<std::function<void(Messages&)>> grouped;

// Alone, or with the group it is called in.
ncclResult_t add(void* stream, std::function<void(Messages&)> operation) {
  grouped.push_back(std::move(operation));
  group_stream = stream;
  if (depth > 0) return ncclSuccess;
  mimo::cuda::queue(stream, [list = std::move(grouped)] {
    Messages m;
    for (const auto& f : list) f(m);
    m.finish();
  });
  grouped.clear();
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) { return *version = NCCL_VERSION_CODE, ncclSuccess; }
const char* ncclGetErrorString(ncclResult_t) { return "invalid usage"; }
const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

// The id: where rank 0 is in the world, and a tag.
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int made = 0;
  int fields[2] = {0, 0};
  MPI_Comm_rank(MPI_COMM_WORLD, &fields[0]);
  fields[1] = 1000 * (fields[0] + 1) + ++made;
  std::memcpy(id->internal, fields, sizeof fields);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* out, int n, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 1) return fail("blocking communicators only");
  int fields[2], me = 0;
  std::memcpy(fields, id.internal, sizeof fields);
  MPI_Comm_rank(MPI_COMM_WORLD, &me);
  auto c = std::make_unique<ncclComm>(ncclComm{std::vector<int>(static_cast<size_t>(n)), rank, fields[1]});
  if (rank == 0) {
    c->world[0] = me;
    for (int i = 1; i < n; ++i) {
      int pair[2];
      MPI_Recv(pair, 2, MPI_INT, MPI_ANY_SOURCE, c->tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      c->world[static_cast<size_t>(pair[0])] = pair[1];
    }
    for (int i = 1; i < n; ++i)
      MPI_Send(c->world.data(), n, MPI_INT, c->world[static_cast<size_t>(i)], c->tag, MPI_COMM_WORLD);
  } else {
    const int pair[2] = {rank, me};
    MPI_Send(pair, 2, MPI_INT, fields[0], c->tag, MPI_COMM_WORLD);
    MPI_Recv(c->world.data(), n, MPI_INT, fields[0], c->tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
  *out = c.release();
  return ncclSuccess;
}

// All ranks meet.
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  Messages m;
  std::vector<char> in(c->world.size());
  for (size_t r = 0; r < in.size(); ++r) m.receive(&in[r], 1, static_cast<int>(r), c);
  for (size_t r = 0; r < in.size(); ++r) m.send(&in[0], 1, static_cast<int>(r), c);
  m.finish();
  delete c;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  return *error = ncclSuccess, ncclSuccess;
}

ncclResult_t ncclGroupStart() { return ++depth, ncclSuccess; }
ncclResult_t ncclGroupEnd() {
  if (--depth > 0 || grouped.empty()) return ncclSuccess;
  auto last = std::move(grouped.back());
  grouped.pop_back();
  return add(group_stream, std::move(last));
}

ncclResult_t ncclSend(const void* p, size_t count, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
  return add(s, [=](Messages& m) { m.send(p, count * size_of(t), peer, c); });
}
ncclResult_t ncclRecv(void* p, size_t count, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
  return add(s, [=](Messages& m) { m.receive(p, count * size_of(t), peer, c); });
}
ncclResult_t ncclReduce(const void* in, void* out, size_t count, ncclDataType_t t, ncclRedOp_t op, int root,
                        ncclComm_t c, cudaStream_t s) {
  if (root == c->rank && !out) return fail("no place for the sum");
  return add(s, [=](Messages&) { reduce(in, out, count, t, op, root, c); });
}
ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t t, ncclRedOp_t op,
                           ncclComm_t c, cudaStream_t s) {
  return add(s, [=](Messages&) { reduce(in, out, count, t, op, -1, c); });
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t t, ncclRedOp_t op,
                               ncclComm_t c, cudaStream_t s) {
  return add(s, [=](Messages&) {
    for (size_t r = 0; r < c->world.size(); ++r)
      reduce(static_cast<const char*>(in) + r * count * size_of(t), out, count, t, op, static_cast<int>(r),
             c);
  });
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t t, ncclComm_t c,
                           cudaStream_t s) {
  return add(s, [=](Messages& m) {
    const size_t bytes = count * size_of(t);
    const std::vector<char> mine(reach(in), reach(in) + bytes);
    for (size_t r = 0; r < c->world.size(); ++r) {
      m.receive(static_cast<char*>(out) + r * bytes, bytes, static_cast<int>(r), c);
      m.send(mine.data(), bytes, static_cast<int>(r), c);
    }
    m.finish();
  });
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t s) {
  return add(s, [=](Messages& m) {
    for (size_t r = 0; c->rank == root && r < c->world.size(); ++r)
      if (static_cast<int>(r) != root) m.send(in, count * size_of(t), static_cast<int>(r), c);
    if (c->rank != root) m.receive(out, count * size_of(t), root, c);
    m.finish();
  });
}

}  // extern "C"
