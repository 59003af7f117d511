// How far from the correctly rounded result CUDA's functions may be, in units of the last place: what the
// emulator's noise injects and tolerances are derived from.
//
// Sources: CUDA C++ Programming Guide, appendix "Mathematical Functions", tables of "Standard Functions"
// (single and double precision) and "Intrinsic Functions"; where versions of it differ, the largest. PTX ISA,
// "Floating Point Instructions: ex2": 2^-22, two units of a result just above a power of two. Division,
// sqrtf and fmaf are correctly rounded, as nvcc compiles them without -use_fast_math.
#pragma once

namespace mimo::ulps {

constexpr int kExpf = 2, kLogf = 1, kLog1pf = 1;
constexpr int kEx2 = 2;       // ex2.approx.ftz.f32
constexpr int kFdividef = 2;  // __fdividef(x, y), |y| in [2^-126, 2^126]
constexpr int kExpDouble = 1, kLogDouble = 1, kPowDouble = 2;

// One of float's, relative to a number just above a power of two: the most there is.
constexpr double kFloat = 0x1p-23;

}  // namespace mimo::ulps
