// Activations and exp on sixteen floats; one file for every instruction set, see simd/f32x16.h.
//
// gelu(x) = x/2 * (1 + erf(x / sqrt 2)) = max(x, 0) - a/2 * (1 - erf(a / sqrt 2)), a = |x|, whose second part is a polynomial
// of degree 7 in min(a, 3.9) without a constant, fitted to the least largest error: 1.6e-4 absolute everywhere. In a
// layer what comes after it is rounded to a step of 0.17 / 252, four times as much, at the least; in the head for masked tokens a norm
// follows.
// tanh(x) = 1 - 2 / (1 + exp(2 x)): error 2e-7 absolute.
// exp(x) = 2^n * Q(f), n = rint(x log2 e), Q of degree 5: relative error 2e-7 for x in -87..88, clamped beyond.
#pragma once

#include "ops/activation_tables.h"
#include "ops/grouped_linear.h"
#include "simd/f32x16.h"

namespace sqb {

namespace {

// 2^x for x within -125..126.
inline F32x16 exp2_inside(F32x16 x) {
  const F32x16 n = round(x);
  const F32x16 f = x - n;
  F32x16 p = set1(kExp2[5]);
  for (int i = 4; i >= 0; --i) p = fma(p, f, set1(kExp2[i]));
  return scale_by_power(p, n);
}

inline F32x16 exp(F32x16 x) { return exp2_inside(min(max(x * set1(kLog2E), set1(-125.0f)), set1(126.0f))); }

inline F32x16 gelu(F32x16 x) {
  const F32x16 a = min(abs(x), set1(kGeluEnd));
  F32x16 p = set1(kGelu[6]);
  for (int i = 5; i >= 0; --i) p = fma(p, a, set1(kGelu[i]));
  return fma(p, a, max(x, set1(0.0f)));
}

template <Activation activation>
inline F32x16 activate(F32x16 x) {
  if constexpr (activation == Activation::gelu) return gelu(x);
  if constexpr (activation == Activation::relu) return max(x, set1(0.0f));
  if constexpr (activation == Activation::tanh) return set1(1.0f) - set1(2.0f) / (set1(1.0f) + exp(x + x));
  if constexpr (activation == Activation::silu) return x / (set1(1.0f) + exp(set1(0.0f) - x));
  if constexpr (activation == Activation::gelu_new) {
    // 0.5 (1 + tanh z) = 1 / (1 + exp(-2 z)),  z = sqrt(2 / pi) (x + 0.044715 x^3)
    const F32x16 cubed = fma(x * x * x, set1(0.044715f), x);
    return x / (set1(1.0f) + exp(cubed * set1(-1.5957691216f)));
  }
  return x;
}

}  // namespace
}  // namespace sqb
