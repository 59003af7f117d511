// What the benchmarks of the kernels share: operands, timing, and the counters that the report reads. They
// run on the device of the current stream, which main sets before it registers them.
#pragma once
#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/device.h"
#include "tools/bench/check.h"
#include "tools/bench/options.h"

namespace mimo::bench {

inline bool on_gpu() { return current_stream().device.kind == Device::Kind::cuda; }
// Whether sizes are those of models that fill a GPU, or small ones (the CPU's, or --small).
bool large();

// Memory on the device, of one repeated block; without one, zeros.
void fill_storage(Storage& to, std::span<const std::byte> block = {});

// n elements on the device: zero, all of one value, or those of a vector.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t n)
      : storage_(allocate(n * static_cast<int64_t>(sizeof(T)), current_stream().device)), size_(n) {
    fill_storage(*storage_);
  }
  Array(int64_t n, T value) : Array(n, std::vector<T>(1 << 12, value)) {}
  Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size()), values) {}
  Array(int64_t n, const std::vector<T>& repeated) : Array(n, repeated, 0) {}
  T* data() { return static_cast<T*>(storage_->data); }
  const T* data() const { return static_cast<const T*>(storage_->data); }
  int64_t size() const { return size_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }

 private:
  Array(int64_t n, const std::vector<T>& repeated, int)
      : storage_(allocate(n * static_cast<int64_t>(sizeof(T)), current_stream().device)), size_(n) {
    fill_storage(*storage_, std::as_bytes(std::span(repeated)));
  }
  std::shared_ptr<Storage> storage_;
  int64_t size_ = 0;
};

// Uniform in [-1, 1); numbers come again after a million.
template <class T>
Array<T> operand(int64_t n) {
  static const std::vector<T> block = [] {
    std::vector<T> v(1 << 20);
    uint32_t bits = 1;
    for (T& x : v) x = T(static_cast<acc_t<T>>(double(bits = bits * 1664525 + 1013904223) * 0x1p-31 - 1));
    return v;
  }();
  return Array<T>(n, block);
}

// Rows at which `sequences` of equal length begin, and where the last ends.
Array<int32_t> packed(int sequences, int length);

// Times `launch`: on the CPU each call, on a GPU many queued between two events.
void repeat(benchmark::State& state, const std::function<void()>& launch);

// With --check, in place of the timing: one call and what the check says of it.
void check_call(benchmark::State& state, const std::function<void(Check&)>& sample,
                const std::function<void()>& launch);

// A call of the op, with the scratch that it asks for.
template <class Op>
std::function<void()> call_of(const Op& op) {
  return std::visit(
      [&](auto context) -> std::function<void()> {
        const auto scratch = std::make_shared<Array<char>>(workspace(context, op));
        context.ws = {scratch->data(), scratch->size()};
        return [context, op, scratch] { run(context, op); };
      },
      current_stream().context);
}

// Ops one after the other. flop and bytes are of all of them: what the formula needs, each operand read or
// written once.
template <template <class> class... Op, class T>
void measure_all(benchmark::State& state, double flop, double bytes, const Op<T>&... ops) {
  const std::function<void()> calls[] = {call_of(ops)...};
  if (options().check) {
    size_t i = 0;
    (check_call(
         state, [&](Check& c) { sample(c, ops); }, calls[i++]),
     ...);
  } else {
    repeat(state, [&] {
      for (const auto& call : calls) call();
    });
  }
  state.counters["FLOP"] = flop;
  state.counters["bytes"] = bytes;
  state.counters["bf16"] = std::is_same_v<T, bf16>;
}

template <class Op>
void measure(benchmark::State& state, const Op& op, double flop, double bytes) {
  measure_all(state, flop, bytes, op);
}

// Registers later, when the device is known. What a benchmark throws becomes its line of the report.
void later(std::function<void()> registration);
using Run = std::function<void(benchmark::State&)>;
benchmark::internal::Benchmark* add_case(const std::string& name, Run run);

// Every benchmark is a template over the storage type, timed by the clock on the wall (kernels use threads).
#define MIMO_BENCHMARK(name, args)                               \
  [[maybe_unused]] const bool registered_##name = [] {           \
    later([] { args(add_case(#name "<float>", name<float>)); }); \
    later([] { args(add_case(#name "<bf16>", name<bf16>)); });   \
    return true;                                                 \
  }()

inline void rows_by_cols(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols"});
  if (large())  // ViT-H and the language models of 8 and 12 thousand million parameters
    b->Args({32768, 1280})->Args({4096, 4096})->Args({16384, 5120});
  else
    b->Args({64, 128})->Args({2048, 768})->Args({8192, 1280});
}

}  // namespace mimo::bench
