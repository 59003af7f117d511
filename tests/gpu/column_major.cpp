// Takes libcublasLt's place on machines without a GPU: the few functions of it that the project calls, over
// plain loops as its reference has them (column-major). It shows that operands, strides, transposes, types
// and epilogue are described as meant, not that cuBLASLt computes.
#include <cublasLt.h>

#include <cstring>

#include "kernels/kernel.h"

namespace {

using mimo::bf16;

struct Layout {
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;
};
struct Desc {
  int32_t trans_a, trans_b;
  uint32_t epilogue;
  const void* bias;
};
struct Preference {
  uint64_t workspace;
  uint32_t schemes, alignment[4];
};
// The opaque structs hold ours.
template <class To, class From>
To& as(From* opaque) {
  static_assert(sizeof(To) <= sizeof(*opaque));
  return *reinterpret_cast<To*>(const_cast<std::remove_const_t<From>*>(opaque));
}
template <class V>
cublasStatus_t assign(V& field, const void* value, size_t bytes) {
  if (bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

double read(const void* p, const Layout& l, int64_t row, int64_t col) {
  const int64_t i = col * l.ld + row;
  return l.type == CUDA_R_16BF ? static_cast<float>(static_cast<const bf16*>(p)[i])
                               : static_cast<const float*>(p)[i];
}
void write(void* p, const Layout& l, int64_t row, int64_t col, double x) {
  const int64_t i = col * l.ld + row;
  if (l.type == CUDA_R_16BF)
    static_cast<bf16*>(p)[i] = static_cast<float>(x);
  else
    static_cast<float*>(p)[i] = static_cast<float>(x);
}
bool multiplies(const Desc& d, const Layout& a, const Layout& b, const Layout& c) {
  const uint64_t m = d.trans_a ? a.cols : a.rows, k = d.trans_a ? a.rows : a.cols;
  const uint64_t kb = d.trans_b ? b.cols : b.rows, n = d.trans_b ? b.rows : b.cols;
  return m == c.rows && n == c.cols && k == kb && k > 0;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusString(cublasStatus_t) { return "refused by the test's library"; }

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  as<Desc>(desc) = {CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  Desc& d = as<Desc>(desc);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(d.trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(d.trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(d.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(d.bias, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t ld) {
  if (ld < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  as<Layout>(layout) = {type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, size_t) {
  as<Preference>(preference) = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  Preference& p = as<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(p.schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return assign(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return assign(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return assign(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return assign(p.alignment[3], value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

// The algorithm carries what was promised, and the product checks it. A bias of 24 columns has no algorithm.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  const Desc& op = as<Desc>(desc);
  const Preference& p = as<Preference>(preference);
  *found = 0;
  if (!multiplies(op, as<Layout>(a), as<Layout>(b), as<Layout>(c)) || std::memcmp(c, d, sizeof(Layout)) != 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (p.schemes & CUBLASLT_REDUCTION_SCHEME_INPLACE || p.schemes & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (op.epilogue == CUBLASLT_EPILOGUE_BIAS && as<Layout>(c).rows == 24) return CUBLAS_STATUS_NOT_SUPPORTED;
  as<Preference>(&results[0].algo) = p;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].workspaceSize = p.workspace;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha_pointer,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta_pointer, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes,
                              cudaStream_t) {
  const Desc& op = as<Desc>(desc);
  const Preference& promised = as<Preference>(algorithm);
  const Layout &la = as<Layout>(a_layout), &lb = as<Layout>(b_layout), &lc = as<Layout>(c_layout);
  const void* pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<uintptr_t>(pointers[i]) % promised.alignment[i] != 0)
      return CUBLAS_STATUS_EXECUTION_FAILED;
  const bool biased = op.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (workspace_bytes < promised.workspace || c != d || biased != (op.bias != nullptr) ||
      (biased && reinterpret_cast<uintptr_t>(op.bias) % 16 != 0))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  std::memset(workspace, 0xff, workspace_bytes < 4096 ? workspace_bytes : 4096);
  const float alpha = *static_cast<const float*>(alpha_pointer),
              beta = *static_cast<const float*>(beta_pointer);
  const auto depth = static_cast<int64_t>(op.trans_a ? la.rows : la.cols);
  for (int64_t j = 0; j < static_cast<int64_t>(lc.cols); ++j)
    for (int64_t i = 0; i < static_cast<int64_t>(lc.rows); ++i) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k)
        sum += (op.trans_a ? read(a, la, k, i) : read(a, la, i, k)) *
               (op.trans_b ? read(b, lb, j, k) : read(b, lb, k, j));
      double x = alpha * sum;
      if (beta != 0) x += beta * read(c, lc, i, j);
      if (biased) x += read(op.bias, {lc.type, lc.rows, 1, 0}, i, 0);
      write(d, lc, i, j, x);
    }
  return CUBLAS_STATUS_SUCCESS;
}
}
