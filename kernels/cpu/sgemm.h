// oneDNN's product of float matrices, on the calling thread alone.
#pragma once
#include <cstdint>

namespace mimo::cpu {

// C = alpha op(A) op(B) + beta C, row-major. The order of the sums over k depends on the whole shape and on
// which operands are transposed. Throws std::invalid_argument where a row stride is shorter than its row.
void sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
           int64_t a_ld, const float* b, int64_t b_ld, float beta, float* c, int64_t c_ld);

}  // namespace mimo::cpu
