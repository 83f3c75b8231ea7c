// Scalar forms of simd/f32x16.h for the references: sums over sixteen partial sums, and the same polynomials.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/activation_tables.h"
#include "ops/grouped_linear.h"

#if defined(__wasm_relaxed_simd__)
#include <wasm_simd128.h>
#endif

namespace sqb::reference {

// fma of simd/f32x16.h: fused everywhere but on WebAssembly, where relaxed instructions fuse if the processor can.
inline float mul_add(float a, float b, float c) {
#if defined(__wasm_relaxed_simd__)
  return wasm_f32x4_extract_lane(wasm_f32x4_relaxed_madd(wasm_f32x4_splat(a), wasm_f32x4_splat(b), wasm_f32x4_splat(c)), 0);
#elif defined(__wasm__)
  return a * b + c;
#else
  return std::fma(a, b, c);
#endif
}

// Sixteen partial sums: element i goes to lane i % 16; then halves are added until one is left.
struct LaneSum {
  float lane[16] = {};
  float total() const {
    float t[16];
    std::memcpy(t, lane, sizeof(t));
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) t[i] += t[i + half];
    return t[0];
  }
};

inline float exp2_inside(float y) {
  const float n = std::nearbyint(y);
  const float f = y - n;
  float p = kExp2[5];
  for (int i = 4; i >= 0; --i) p = mul_add(p, f, kExp2[i]);
  int32_t bits;
  std::memcpy(&bits, &p, 4);
  bits += static_cast<int32_t>(n) * (1 << 23);
  std::memcpy(&p, &bits, 4);
  return p;
}

inline float exp(float x) {
  float y = x * kLog2E;
  y = y > -125.0f ? y : -125.0f;
  y = y < 126.0f ? y : 126.0f;
  return exp2_inside(y);
}

inline float gelu(float x) {
  const float size = std::fabs(x), a = size < kGeluEnd ? size : kGeluEnd;
  float p = kGelu[6];
  for (int i = 5; i >= 0; --i) p = mul_add(p, a, kGelu[i]);
  return mul_add(p, a, x > 0.0f ? x : 0.0f);
}

inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::gelu: return gelu(x);
    case Activation::relu: return x > 0.0f ? x : 0.0f;
    case Activation::silu: return x / (1.0f + exp(0.0f - x));
    case Activation::tanh: return 1.0f - 2.0f / (1.0f + exp(x + x));
    case Activation::gelu_new: return x / (1.0f + exp(mul_add(x * x * x, 0.044715f, x) * -1.5957691216f));
  }
  return x;
}

}  // namespace sqb::reference
