// Every operation against what its definition gives, with small and tiny limits, any dtype, sizes from 0.
#include "parallel/communicator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "main.h"
#include "parallel/reduce.h"

const char* const kRanks = "1 2 3 5";

namespace mimo {
namespace {

Stream& stream() { return current_stream(); }

struct Way {
  const char* name;
  Limits limits;
};
// Each way of all_reduce, whole and in tiny messages and pieces.
const std::vector<Way> kWays = {
    {"default", {}},
    {"direct", {.direct = int64_t{1} << 40}},
    {"in parts", {.direct = -1}},
    {"direct, tiny", {.message = 3, .scratch = 56, .direct = int64_t{1} << 40}},
    {"in parts, tiny", {.message = 3, .scratch = 56, .direct = -1}},
};

std::shared_ptr<Communicator> everyone(const Limits& limits = {}) {
  return test_world().create(test_comm().ranks(), limits);
}

// Element i of rank r: values over six octaves, whose sum depends on the order.
double value(int r, int64_t i, DType t) {
  const uint64_t h = (static_cast<uint64_t>(i) * 8 + r + 1) * 0x9E3779B97F4A7C15u >> 40;  // 24 bits
  if (t == DType::f32 || t == DType::bf16 || t == DType::f64)
    return std::ldexp(static_cast<double>(h % 2001) - 1000, static_cast<int>(h / 2001 % 6));
  return static_cast<double>(h % 50);
}

template <class T>
std::vector<T> values(int r, int64_t n) {
  std::vector<T> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(static_cast<T>(value(r, i, dtype_of<T>())));
  return v;
}

template <class T>
std::vector<T> reduced(int ranks, int64_t n, ReduceOp op) {
  using A = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  std::vector<T> out;
  std::vector<std::vector<T>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(values<T>(r, n));
  for (int64_t i = 0; i < n; ++i) {
    A a = all[0][i];
    for (int r = 1; r < ranks; ++r) {
      const A b = all[r][i];
      a = op == ReduceOp::sum ? static_cast<A>(a + b) : op == ReduceOp::max ? std::max(a, b) : std::min(a, b);
    }
    out.push_back(static_cast<T>(a));
  }
  return out;
}

template <class T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0)
        << what << ": element " << i << " of " << a.size() << ": " << static_cast<double>(a[i]) << " and "
        << static_cast<double>(b[i]);
}

template <class T>
void check_all_reduce() {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (int64_t n : {0, 1, 2, 5, 7, 64, way.limits.scratch < 100 ? 65 : 30'000})
      for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
        std::vector<T> x = values<T>(comm->rank(), n);
        comm->all_reduce({x.data(), n, dtype_of<T>()}, op, stream()).wait();
        expect_same_bits(x, reduced<T>(comm->size(), n, op),
                         std::string(way.name) + ", " + name_of(dtype_of<T>()));
      }
  }
}

TEST(Communicator, AllReduceSumsInRankOrder) {
  check_all_reduce<float>();
  check_all_reduce<bf16>();
  check_all_reduce<double>();
  check_all_reduce<int32_t>();
  check_all_reduce<int64_t>();
  check_all_reduce<uint8_t>();
}

TEST(Communicator, AllReduceOfManyMegabytes) {
  const auto comm = everyone();
  const int64_t n = 5'000'001, period = 1009;
  const auto at = [](int64_t i, int r) { return (i + 101 * r) % period; };
  const std::vector<float> some = values<float>(0, period);
  std::vector<float> x(n), sums(some);
  for (int64_t i = 0; i < n; ++i) x[i] = some[at(i, comm->rank())];
  for (int r = 1; r < comm->size(); ++r)
    for (int64_t i = 0; i < period; ++i) sums[i] += some[at(i, r)];
  comm->all_reduce({x.data(), n, DType::f32}, ReduceOp::sum, stream()).wait();
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x[i], sums[i % period]) << i;
}

TEST(Communicator, ANanWinsMaxAndMin) {
  Communicator& comm = test_comm();
  for (int from = 0; from < comm.size(); ++from)
    for (ReduceOp op : {ReduceOp::max, ReduceOp::min}) {
      float x =
          comm.rank() == from ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(comm.rank());
      comm.all_reduce({&x, 1, DType::f32}, op, stream()).wait();
      EXPECT_TRUE(std::isnan(x));
    }
}

// Counts that differ by rank, some of them 0.
std::vector<int64_t> uneven(int size) {
  std::vector<int64_t> counts;
  for (int r = 0; r < size; ++r) counts.push_back(r % 3 == 1 ? 0 : 5 * r + 2);
  return counts;
}
int64_t total(const std::vector<int64_t>& counts, int end) {
  int64_t sum = 0;
  for (int r = 0; r < end; ++r) sum += counts[r];
  return sum;
}

TEST(Communicator, AllGatherTakesCountsPerRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    const auto counts = uneven(comm->size());
    std::vector<double> in = values<double>(comm->rank(), counts[comm->rank()]), expected;
    for (int r = 0; r < comm->size(); ++r)
      for (double v : values<double>(r, counts[r])) expected.push_back(v);
    const int64_t all = static_cast<int64_t>(expected.size());
    std::vector<double> out(all, -1);
    comm->all_gather({in.data(), counts[comm->rank()], DType::f64}, {out.data(), all, DType::f64}, counts,
                     stream());
    expect_same_bits(out, expected, way.name);
    // In place.
    std::vector<double> same(all, -1);
    const int64_t begin = total(counts, comm->rank());
    std::copy(in.begin(), in.end(), same.begin() + begin);
    comm->all_gather({same.data() + begin, counts[comm->rank()], DType::f64}, {same.data(), all, DType::f64},
                     counts, stream());
    expect_same_bits(same, expected, way.name);
  }
}

TEST(Communicator, ReduceScatterTakesCountsPerRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    const auto counts = uneven(comm->size());
    const int64_t all = total(counts, comm->size()), begin = total(counts, comm->rank());
    const int64_t mine = counts[comm->rank()];
    const auto sums = reduced<float>(comm->size(), all, ReduceOp::sum);
    const std::vector<float> expected(sums.begin() + begin, sums.begin() + begin + mine);
    std::vector<float> in = values<float>(comm->rank(), all), out(mine);
    comm->reduce_scatter({in.data(), all, DType::f32}, {out.data(), mine, DType::f32}, counts, stream());
    expect_same_bits(out, expected, way.name);
    comm->reduce_scatter({in.data(), all, DType::f32}, {in.data() + begin, mine, DType::f32}, counts,
                         stream());
    expect_same_bits({in.begin() + begin, in.begin() + begin + mine}, expected, "in place");
  }
}

TEST(Communicator, BroadcastFromAnyRank) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    for (int root = 0; root < comm->size(); ++root) {
      std::vector<int32_t> x = values<int32_t>(comm->rank(), 11);
      comm->broadcast({x.data(), 11, DType::i32}, root, stream()).wait();
      expect_same_bits(x, values<int32_t>(root, 11), way.name);
    }
  }
}

TEST(Communicator, AllToAllTakesCountsPerPair) {
  const auto count = [](int from, int to) { return int64_t{(3 * from + 5 * to) % 4}; };
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    std::vector<int64_t> send, receive, in, expected;
    for (int r = 0; r < comm->size(); ++r) {
      send.push_back(count(comm->rank(), r));
      receive.push_back(count(r, comm->rank()));
      for (int64_t i = 0; i < send.back(); ++i) in.push_back(1000 * comm->rank() + 10 * r + i);
      for (int64_t i = 0; i < receive.back(); ++i) expected.push_back(1000 * r + 10 * comm->rank() + i);
    }
    std::vector<int64_t> out(expected.size(), -1);
    comm->all_to_all({in.data(), static_cast<int64_t>(in.size()), DType::i64}, send,
                     {out.data(), static_cast<int64_t>(out.size()), DType::i64}, receive, stream());
    EXPECT_EQ(out, expected) << way.name;
  }
}

TEST(Communicator, ExchangeMatchesMessagesOfAPairInOrder) {
  for (const Way& way : kWays) {
    const auto comm = everyone(way.limits);
    const int me = comm->rank(), n = comm->size();
    std::vector<P2P> messages;
    std::vector<Tensor> in;
    for (int peer = 0; peer < n; ++peer)  // itself too
      for (int k = 0; k < 3; ++k) {
        const int64_t count = k == 1 ? 0 : 4 + k + me + peer;
        messages.push_back(
            {true, peer,
             Tensor::of(std::vector<float>(count, static_cast<float>(100 * me + 10 * peer + k)))});
        in.push_back(Tensor::zeros({count}, DType::f32));
        messages.push_back({false, peer, in.back()});
      }
    Work work = comm->exchange(messages, stream());
    messages.clear();  // the work keeps the tensors
    // A collective meanwhile does not take the exchange's messages.
    float one = 1;
    comm->all_reduce({&one, 1, DType::f32}, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(one, static_cast<float>(n));
    while (!work.test()) std::this_thread::yield();
    for (int peer = 0; peer < n; ++peer)
      for (int k = 0; k < 3; ++k)
        for (float v : in[3 * peer + k].to_vector<float>()) EXPECT_EQ(v, 100 * peer + 10 * me + k);
  }
}

TEST(Communicator, ADroppedExchangeIsComplete) {
  Communicator& comm = test_comm();
  const int next = (comm.rank() + 1) % comm.size(), last = (comm.rank() + comm.size() - 1) % comm.size();
  const Tensor in = Tensor::zeros({100'000}, DType::f32);
  {
    const std::vector<float> mine(100'000, static_cast<float>(comm.rank()));
    comm.exchange(std::vector<P2P>{{true, next, Tensor::of(mine)}, {false, last, in}}, stream());
  }
  EXPECT_EQ(in.to_vector<float>(), std::vector<float>(100'000, static_cast<float>(last)));
}

TEST(Communicator, AMessageOfAnotherSizeIsAnError) {
  Communicator& comm = test_comm();
  if (comm.size() < 2) return;
  const auto pair = test_world().create({0, 1});
  if (!pair) return;
  for (int64_t sent : {3, 5}) {
    const P2P message{pair->rank() == 0, 1 - pair->rank(),
                      Tensor::zeros({pair->rank() == 0 ? sent : 4}, DType::f32)};
    if (pair->rank() == 0) {
      pair->exchange(std::span(&message, 1), stream()).wait();
      continue;
    }
    try {
      pair->exchange(std::span(&message, 1), stream()).wait();
      FAIL() << "accepted " << sent << " elements for 4";
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find("from rank 0 of the group: expected 4 elements of f32"),
                std::string::npos)
          << e.what();
    }
  }
}

TEST(Communicator, WrongCountsAreRefusedBeforeAnyMessage) {
  Communicator& comm = test_comm();
  std::vector<float> x(comm.size() + 1);
  const std::vector<int64_t> one_each(comm.size(), 1);
  if (comm.size() > 1) {
    EXPECT_THROW(comm.all_gather({x.data(), 1, DType::f32}, {x.data(), comm.size() + 1, DType::f32}, one_each,
                                 stream()),
                 std::logic_error);
  }
  const Tensor t = Tensor::zeros({4, 4}, DType::f32);
  EXPECT_THROW(Buffer(t.columns(0, 2)), std::logic_error);
  EXPECT_NO_THROW(Buffer(t.slice(1, 3)));
}

TEST(World, GroupsKeepTheOrderOfTheirRanks) {
  const int n = test_comm().size(), me = test_comm().rank();
  Ranks reversed;
  for (int r = n - 1; r >= 0; --r) reversed.push_back(r);
  const auto comm = test_world().create(reversed);
  EXPECT_EQ(comm->ranks(), reversed);
  EXPECT_EQ(comm->rank(), n - 1 - me);
  EXPECT_EQ(comm->size(), n);
  for (int r = 0; r < n; ++r) {
    const auto single = test_world().create({r});
    ASSERT_EQ(single != nullptr, r == me);
    if (single) {
      EXPECT_EQ(single->ranks(), Ranks{r});
      EXPECT_EQ(single->size(), 1);
    }
  }
}

TEST(World, OverlappingGroupsInOneOrderDoNotWaitForEachOther) {
  const int n = test_comm().size(), me = test_comm().rank();
  std::vector<Ranks> groups;  // every interval of ranks
  for (int a = 0; a < n; ++a)
    for (int b = a + 2; b <= n; ++b) {
      Ranks g;
      for (int r = a; r < b; ++r) g.push_back(r);
      if (a <= me && me < b) groups.push_back(g);
    }
  std::this_thread::sleep_for(std::chrono::milliseconds(5 * ((7 * me) % n)));
  std::shuffle(groups.begin(), groups.end(), std::mt19937(me));
  const Groups made(test_world(), groups);
  std::sort(groups.begin(), groups.end());
  for (const Ranks& g : groups) {
    int64_t sum = me;
    made.at(g).all_reduce({&sum, 1, DType::i64}, ReduceOp::sum, stream()).wait();
    EXPECT_EQ(sum, int64_t{g.front() + g.back()} * static_cast<int64_t>(g.size()) / 2);
  }
  EXPECT_THROW(made.at({n, n + 1}), std::logic_error);
}

TEST(World, KnowsItsMachine) {
  EXPECT_EQ(test_world().node_size(), test_comm().size());  // tests run on one machine
  EXPECT_EQ(test_world().node_rank(), test_comm().rank());
  test_comm().barrier();
}

}  // namespace
}  // namespace mimo
