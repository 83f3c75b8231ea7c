// Attention of one head over one sequence of T tokens, D channels, on int16 products with exact softmax:
//     q' = rint(q * c / max|q|) per token,  k' likewise,  c = floor(sqrt((2^31 - 1) / D)), at most 32,767
//     S[i, j] = float(sum_d q'[i, d] * k'[j, d]) * (q_scale[i] log2(e) / sqrt(D) * k_scale[j])       exact int32 sums
//     e[i, j] = 2^max(S[i, j] - max_j S[i, j], -125),  P[i, j] = rint(e * (32767 / sum_j e))
//     v' = rint(v * 32767 / max|v| over the sequence)
//     y[i, d] = float(sum_j P[i, j] * v'[j, d]) * (v_scale / 32767)
// Sums stay within int32 for T <= 32,768: sum_j P <= 32767 + T / 2. exp is 2^n times a polynomial, relative error
// 2e-7. Int16 rather than bf16: the sums are the same everywhere, and outliers in q, k or v leave the rest 5,792 levels
// (D = 64) and 32,767. All sixteen-lane orders as in simd/f32x16.h; lanes beyond T do not take part.
#pragma once

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

}  // namespace sqb
