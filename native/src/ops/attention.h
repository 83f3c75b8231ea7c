// Attention of one head over one sequence of T tokens, D channels, on whole numbers with exact softmax:
//     k'[j, d] = rint(k[j, d] * 127 / max_j |k[., d]|),  k_scale[d] = max_j |k[., d]| / 127       a scale per channel
//     v' likewise
//     q''[i, d] = q[i, d] * k_scale[d],  q' = rint(q'' * L / max_d |q''[i, .]|)                    L: query_level(D)
//     S[i, j] = float(sum_d q'[i, d] k'[j, d]),  scale[i] = max_d |q''[i, .]| / L * log2(e) / sqrt(D)
//     e[i, j] = 2^max((S[i, j] - max_j S[i, .]) * scale[i] + b, -125),  P = min(rint(e), 32767)    b: probability_bits(T)
//     y[i, d] = float(sum_j P[i, j] v'[j, d]) * (1 / sum_j e[i, j] * v_scale[d])
// with the product and the sum in e's exponent fused, so that it is b at most. Of finite values sums are exact and fit in int32;
// of others results differ from set to set. Keys and values have eight bits, with a scale for each channel. A channel of the
// keys that is much larger than the rest takes levels from the queries only, which have sixteen bits, as probabilities have
// up to 516 tokens; with four times as many they have two bits less. exp is 2^n times a polynomial, relative error
// 2e-7. All sixteen-lane orders as in simd/f32x16.h; lanes beyond T do not take part.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "aligned.h"

namespace sqb {

struct AttentionCall {
  const float* q;
  const float* k;
  const float* v;
  ptrdiff_t stride;  // of q, k and v
  int tokens;
  int head_size;
  float* y;
  ptrdiff_t y_stride;
  uint8_t* scratch;  // attention_scratch(tokens, head_size) bytes, 64-byte aligned
};
using AttentionFn = void(const AttentionCall& call);

size_t attention_scratch(int tokens, int head_size);
// Pages that amx.h divides into tiles, at the start of the scratch.
int attention_pages(int tokens, int head_size);
constexpr int kAttentionPage = 4096;

// The largest sums of absolute values that fit in int32, with factors up to 127.
constexpr int32_t kMostAttentionSum = 2147483647 / 127;
// The largest integer of queries: 32767 up to 516 channels.
inline float query_level(int head_size) { return std::fmin(static_cast<float>(kMostAttentionSum / head_size), 32767.0f); }
// The largest e is 2 to this: 15 up to 516 tokens.
inline int probability_bits(int tokens) {
  int bits = 15;
  while (kMostAttentionSum >> bits < tokens) --bits;
  return bits;
}
// What is no larger becomes zero.
constexpr float kNoAttentionScale = 1e-30f;

}  // namespace sqb
