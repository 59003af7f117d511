// Matrix products by cuBLASLt, which is loaded at the first one.
//
// cuBLASLt is column-major and C is row-major, so it computes D = C^T = op(B)^T op(A)^T: its A is our B and
// the other way round, every row-major matrix is the column-major transpose of itself with the same stride,
// and C's columns are D's rows, along which its bias epilogue runs.
//
// Algorithms come from the library's heuristic, are kept by everything it sees, and are never timed. Allowed
// are those that take k in one sequence or sum parts of it in float in a separate step: they have the same
// bits in every run on the same kind of GPU, and round to C's type once. The scratch an algorithm may use
// depends on the shape alone, not on what is free. Sums of fp32 are in fp32 (no TF32).
#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "kernels/cuda/library.h"
#include "kernels/cuda/product.h"

namespace mimo::cuda {
namespace {

// The descriptors are plain memory of known size: made in place, copied, never destroyed. Their size is that
// of the headers' version, which is looked for first; a newer one may also need a newer driver.
struct Functions {
  Library library{{"libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR),
                   CUBLAS_VER_MAJOR == 12 ? "libcublasLt.so.13" : "libcublasLt.so.12", "libcublasLt.so"}};
#define FUNCTION(name) \
  decltype(cublasLt##name)* name = library.symbol<decltype(cublasLt##name)>("cublasLt" #name)
  FUNCTION(Create);
  FUNCTION(GetStatusString);
  FUNCTION(MatmulDescInit_internal);
  FUNCTION(MatmulDescSetAttribute);
  FUNCTION(MatrixLayoutInit_internal);
  FUNCTION(MatmulPreferenceInit_internal);
  FUNCTION(MatmulPreferenceSetAttribute);
  FUNCTION(MatmulAlgoGetHeuristic);
  FUNCTION(Matmul);
#undef FUNCTION
};
const Functions& blas() {
  static const Functions functions;
  return functions;
}

// What an algorithm depends on.
struct Key {
  int device;
  DType in, out;
  bool trans_a, trans_b, bias;
  int64_t m, n, k, a_ld, b_ld, c_ld;
  uint32_t alignment;  // bytes, of every operand's first element
  auto operator<=>(const Key&) const = default;
};

struct Plan {
  cublasLtHandle_t handle;
  cublasLtMatmulDescOpaque_t matmul;
  cublasLtMatrixLayoutOpaque_t a, b, c;  // as cuBLASLt calls them
  cublasLtMatmulAlgo_t algorithm;
  bool found;
};

// The library distinguishes alignments up to 256 bytes, its kernels load up to 16. One value for all
// operands: it may be less than an operand has, and mixed ones below 4 bytes have been refused.
uint32_t common_alignment(const Product& p) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(p.a) | reinterpret_cast<uintptr_t>(p.b) |
                         reinterpret_cast<uintptr_t>(p.c) | 256;
  const auto alignment = static_cast<uint32_t>(bits & -bits);
  return alignment == 256 ? 256 : std::min(alignment, 16u);
}

Key key_of(const Cuda& cuda, const Product& p) {
  return {cuda.device, p.in, p.out,  p.trans_a, p.trans_b, p.bias != nullptr,  p.m,
          p.n,         p.k,  p.a_ld, p.b_ld,    p.c_ld,    common_alignment(p)};
}

std::string text(const Key& k) {
  return std::string(name_of(k.in)) + " to " + name_of(k.out) + (k.trans_a ? ", T" : ", N") +
         (k.trans_b ? "T" : "N") + " m=" + std::to_string(k.m) + " n=" + std::to_string(k.n) +
         " k=" + std::to_string(k.k) + " a_ld=" + std::to_string(k.a_ld) + " b_ld=" + std::to_string(k.b_ld) +
         " c_ld=" + std::to_string(k.c_ld) + " alignment=" + std::to_string(k.alignment) +
         (k.bias ? ", bias" : "") + ", device " + std::to_string(k.device);
}

void check(cublasStatus_t status, const char* call, const Key& key) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(call) + ": " + blas().GetStatusString(status) + " (product " +
                             text(key) + "; " + blas().library.path() + ")");
}

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// A stored row-major matrix of rows x cols.
void describe(cublasLtMatrixLayoutOpaque_t& layout, DType type, int64_t rows, int64_t cols, int64_t ld,
              const Key& key) {
  check(blas().MatrixLayoutInit_internal(&layout, sizeof layout, type_of(type), static_cast<uint64_t>(cols),
                                         static_cast<uint64_t>(rows), ld),
        "cublasLtMatrixLayoutInit", key);
}

Plan make_plan(cublasLtHandle_t handle, const Key& key, int64_t workspace_bytes) {
  const Functions& f = blas();
  Plan plan{};
  plan.handle = handle;
  check(f.MatmulDescInit_internal(&plan.matmul, sizeof plan.matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "cublasLtMatmulDescInit", key);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check(f.MatmulDescSetAttribute(&plan.matmul, attribute, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute", key);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, key.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, key.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (key.bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  describe(plan.a, key.in, key.trans_b ? key.n : key.k, key.trans_b ? key.k : key.n, key.b_ld, key);
  describe(plan.b, key.in, key.trans_a ? key.k : key.m, key.trans_a ? key.m : key.k, key.a_ld, key);
  describe(plan.c, key.out, key.m, key.n, key.c_ld, key);

  cublasLtMatmulPreferenceOpaque_t preference;
  check(f.MatmulPreferenceInit_internal(&preference, sizeof preference), "cublasLtMatmulPreferenceInit", key);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(f.MatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute", key);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(attribute, key.alignment);

  cublasLtMatmulHeuristicResult_t result{};
  int results = 0;
  const cublasStatus_t status = f.MatmulAlgoGetHeuristic(handle, &plan.matmul, &plan.a, &plan.b, &plan.c,
                                                         &plan.c, &preference, 1, &result, &results);
  plan.found = status == CUBLAS_STATUS_SUCCESS && results > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  if (!plan.found &&
      !(key.bias && (status == CUBLAS_STATUS_SUCCESS || status == CUBLAS_STATUS_NOT_SUPPORTED)))
    check(status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status,
          "cublasLtMatmulAlgoGetHeuristic", key);
  plan.algorithm = result.algo;
  return plan;
}

// The plans so far, forgotten when they are many: token counts change from step to step.
Plan plan_for(const Key& key, int64_t workspace_bytes) {
  constexpr size_t most = 4096;
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;  // of a device; usable by all threads
  static std::map<Key, Plan> plans;
  const std::lock_guard lock(mutex);
  const auto known = plans.find(key);
  if (known != plans.end()) return known->second;
  auto handle = handles.find(key.device);
  if (handle == handles.end()) {
    cublasLtHandle_t made = nullptr;
    check(blas().Create(&made), "cublasLtCreate", key);
    handle = handles.emplace(key.device, made).first;
  }
  if (plans.size() >= most) plans.clear();
  return plans.emplace(key, make_plan(handle->second, key, workspace_bytes)).first->second;
}

}  // namespace

// 32 MiB are what NVIDIA recommends from Hopper on.
int64_t multiply_workspace(const Product& p) {
  const double multiply_adds = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  return (multiply_adds < 1 << 20 ? int64_t{1} : int64_t{32}) << 20;
}

bool multiply(const Cuda& cuda, const Product& p) {
  if (!bias_can_be_fused(p)) return false;
  const int64_t bytes = multiply_workspace(p);
  if (cuda.ws.bytes < bytes)
    throw std::invalid_argument("workspace too small: need at least " + std::to_string(bytes) +
                                " bytes, found " + std::to_string(cuda.ws.bytes) +
                                ". hint: size it by workspace(context, op)");
  const Key key = key_of(cuda, p);
  Plan plan = plan_for(key, bytes);
  if (!plan.found) return false;
  if (p.bias)
    check(blas().MatmulDescSetAttribute(&plan.matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                        sizeof p.bias),
          "cublasLtMatmulDescSetAttribute", key);
  check(blas().Matmul(plan.handle, &plan.matmul, &p.alpha, p.b, &plan.a, p.a, &plan.b, &p.beta, p.c, &plan.c,
                      p.c, &plan.c, &plan.algorithm, cuda.ws.data, static_cast<size_t>(bytes),
                      static_cast<cudaStream_t>(cuda.stream)),
        "cublasLtMatmul", key);
  return true;
}

}  // namespace mimo::cuda
