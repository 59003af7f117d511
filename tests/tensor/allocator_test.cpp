#include "tensor/allocator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

// Under the address sanitizer too, a request too large is answered, not the end of the program.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace mimo {
namespace {

constexpr Device kCpu{};

MemoryStatistics of(const std::string& label) { return memory_statistics()[label]; }

TEST(Allocator, RoundsUpByAtMostAnEighth) {
  for (int64_t bytes = 1; bytes < int64_t{1} << 22; bytes += 1 + bytes / 7) {
    const auto s = allocate(bytes, kCpu);
    EXPECT_GE(s->bytes, bytes);
    EXPECT_LE(s->bytes, std::max(bytes + 63, bytes + bytes / 8)) << bytes;
    EXPECT_GE(s->block, s->bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(s->data) % 64, 0u);
    std::memset(s->data, 1, s->block);
  }
}

// Of sizes that no other test asks for, so that no block of theirs fits.
TEST(Allocator, FreedBlocksAreReused) {
  const int64_t before = cached_memory();
  void* first;
  {
    const auto s = allocate(100 << 20, kCpu);
    first = s->data;
  }
  EXPECT_GE(cached_memory(), before + (100 << 20));
  {
    const auto a = allocate(99 << 20, kCpu);  // fits, though not as long
    EXPECT_EQ(a->data, first);
    EXPECT_EQ(cached_memory(), before);
    const auto b = allocate(99 << 20, kCpu);
    EXPECT_NE(b->data, first);
  }
  const auto s = allocate(60 << 20, kCpu);  // too small for a block of 100 MB
  EXPECT_LT(s->block, 99 << 20);
}

TEST(Allocator, FreeBlocksOfManySizesDoNotPileUp) {
  reset_memory_peaks();
  const int64_t before = memory_total().current;
  // Ever longer batches: no block fits the next one.
  int64_t largest = 0;
  for (int64_t bytes = 8 << 20; bytes < 64 << 20; bytes += bytes / 4) {
    allocate(bytes, kCpu);
    largest = bytes + bytes / 8;
    EXPECT_LE(cached_memory(), 2 * (before + largest));
  }
  // Lengths that vary by a quarter settle on the blocks of the longest.
  { allocate(256 << 20, kCpu); }
  const int64_t cached = cached_memory();
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) allocate((256 << 20) - static_cast<int64_t>(random() % (64 << 20)), kCpu);
  EXPECT_EQ(cached_memory(), cached);
}

TEST(Allocator, CountsUnderTheInnermostLabelOfTheThread) {
  std::shared_ptr<Storage> outlives;
  {
    MemoryLabel a("label_a");
    const auto x = allocate(1024, kCpu);
    {
      MemoryLabel b("label_b");
      outlives = allocate(2048, kCpu);
      EXPECT_EQ(of("label_b").current, 2048);
    }
    { const auto y = allocate(4096, kCpu); }
    EXPECT_EQ(of("label_a").current, 1024);
    EXPECT_EQ(of("label_a").peak, 5120);
  }
  EXPECT_EQ(of("label_a").current, 0);
  EXPECT_EQ(of("label_b").current, 2048) << "freed where it was counted, not by the label in hand";
  reset_memory_peaks();
  EXPECT_EQ(of("label_a").peak, 0);
  EXPECT_EQ(of("label_b").peak, 2048);
  const int64_t total = memory_total().current;
  {
    MemoryLabel a("label_a");
    outlives = nullptr;
  }
  EXPECT_EQ(of("label_b").current, 0);
  EXPECT_EQ(of("label_a").current, 0);
  EXPECT_EQ(memory_total().current, total - 2048);
  EXPECT_GE(memory_total().peak, total);
}

TEST(Allocator, EmptyStorageHasNoMemory) {
  MemoryLabel label("label_empty");
  const auto s = allocate(0, kCpu);
  EXPECT_EQ(s->data, nullptr);
  EXPECT_EQ(of("label_empty").peak, 0);
}

TEST(Allocator, OutOfMemorySaysWhoHasIt) {
  MemoryLabel label("label_greedy");
  const auto some = allocate(1024, kCpu);
  try {
    allocate(int64_t{1} << 62, kCpu);
    FAIL();
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("bytes for label_greedy; in use:"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("label_greedy 1024"), std::string::npos) << e.what();
  }
  EXPECT_EQ(of("label_greedy").current, 1024);
  EXPECT_EQ(of("label_greedy").peak, 1024);
}

TEST(Allocator, ThreadsAllocateAndFreeEachOthersBlocks) {
  constexpr int kThreads = 4, kRounds = 2000;
  std::vector<std::vector<std::shared_ptr<Storage>>> kept(kThreads);
  const auto work = [&](int t) {
    MemoryLabel label("thread_" + std::to_string(t));
    std::mt19937 random(t);
    for (int i = 0; i < kRounds; ++i) {
      auto s = allocate(1 + random() % 5000, kCpu);
      std::memset(s->data, t, s->bytes);
      if (i % 100 == 0) kept[t].push_back(s);
    }
    // Nobody else was given what this thread holds.
    for (const auto& s : kept[t])
      for (int64_t i = 0; i < s->bytes; ++i) ASSERT_EQ(static_cast<char*>(s->data)[i], t);
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (auto& t : threads) t.join();
  for (int t = 0; t < kThreads; ++t) {
    int64_t bytes = 0;
    for (const auto& s : kept[t]) bytes += s->bytes;
    EXPECT_EQ(of("thread_" + std::to_string(t)).current, bytes);
  }
  kept.clear();  // by another thread than the one that allocated
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(of("thread_" + std::to_string(t)).current, 0);
}

}  // namespace
}  // namespace mimo
