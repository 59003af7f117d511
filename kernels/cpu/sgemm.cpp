#include "kernels/cpu/sgemm.h"

#include <dnnl.h>
#include <omp.h>

#include <stdexcept>
#include <string>

namespace mimo::cpu {

void sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
           int64_t a_ld, const float* b, int64_t b_ld, float beta, float* c, int64_t c_ld) {
  // The library's threads are OpenMP's, whose number is a thread's own setting.
  [[maybe_unused]] thread_local const bool alone = (omp_set_num_threads(1), true);
  const dnnl_status_t status =
      dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, a_ld, b, b_ld, beta, c, c_ld);
  if (status != dnnl_success)
    throw std::invalid_argument("dnnl_sgemm refused m=" + std::to_string(m) + " n=" + std::to_string(n) +
                                " k=" + std::to_string(k) + " a_ld=" + std::to_string(a_ld) +
                                " b_ld=" + std::to_string(b_ld) + " c_ld=" + std::to_string(c_ld) +
                                ". hint: a row stride is shorter than its row?");
}

}  // namespace mimo::cpu
