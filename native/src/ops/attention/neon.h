// smlal on 128 bits: four int32 sums of one product of int16, the activation taken from a lane. Pairs of channels, which a
// panel holds side by side, are parted as they are loaded (ld2). Three rows by sixteen columns: 12 sums, 4 weights and 3
// activations. Half as many products an instruction as int8 would have in four parts, but there is no exact other way
// before SVE2: sums need all 32 bits. Exact.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

struct NeonTile16 {
  static constexpr bool kFused = false;

  // Sixteen rows of sixteen pairs, `stride` int16 apart -> the other way round, four by four.
  static inline void transpose_pairs(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    for (int i = 0; i < 16; i += 4)
      for (int j = 0; j < 16; j += 4) {
        int32x4_t x[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) x[r] = vreinterpretq_s32_s16(vld1q_s16(rows + (i + r) * stride + 2 * j));
        const int32x4x2_t low = vzipq_s32(x[0], x[2]), high = vzipq_s32(x[1], x[3]);
        const int32x4x2_t first = vzipq_s32(low.val[0], high.val[0]), last = vzipq_s32(low.val[1], high.val[1]);
        int16_t* target = out + j * out_stride + 2 * i;
        vst1q_s16(target, vreinterpretq_s16_s32(first.val[0]));
        vst1q_s16(target + out_stride, vreinterpretq_s16_s32(first.val[1]));
        vst1q_s16(target + 2 * out_stride, vreinterpretq_s16_s32(last.val[0]));
        vst1q_s16(target + 3 * out_stride, vreinterpretq_s16_s32(last.val[1]));
      }
  }

  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    for (int v = 0; v < V; ++v) {
      if constexpr (R > 3) {
        part<3>(a, a_stride, b + 32 * v, 32 * V, steps, out + 16 * v, 16 * V);
        part<R - 3>(a + 3 * a_stride, a_stride, b + 32 * v, 32 * V, steps, out + 3 * 16 * V + 16 * v, 16 * V);
      } else {
        part<R>(a, a_stride, b + 32 * v, 32 * V, steps, out + 16 * v, 16 * V);
      }
    }
  }

  template <int R, int pair>
  [[gnu::always_inline]] static inline void step(const int16x8_t (&x)[R], const int16_t* b, int32x4_t (&c)[R][4]) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const int16x8x2_t w = vld2q_s16(b + 16 * h);
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        c[r][2 * h] = vmlal_laneq_s16(c[r][2 * h], vget_low_s16(w.val[0]), x[r], 2 * pair);
        c[r][2 * h + 1] = vmlal_high_laneq_s16(c[r][2 * h + 1], w.val[0], x[r], 2 * pair);
      }
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        c[r][2 * h] = vmlal_laneq_s16(c[r][2 * h], vget_low_s16(w.val[1]), x[r], 2 * pair + 1);
        c[r][2 * h + 1] = vmlal_high_laneq_s16(c[r][2 * h + 1], w.val[1], x[r], 2 * pair + 1);
      }
    }
  }

  // Sixteen of `width` columns.
  template <int R>
  static void part(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, ptrdiff_t b_step, int steps, int32_t* out, int width) {
    int32x4_t c[R][4];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) c[r][h] = vdupq_n_s32(0);
    int16x8_t x[R];
    int k = 0;
    for (; k + 4 <= steps; k += 4) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) x[r] = vld1q_s16(a + r * a_stride);
      step<R, 0>(x, b, c);
      step<R, 1>(x, b + b_step, c);
      step<R, 2>(x, b + 2 * b_step, c);
      step<R, 3>(x, b + 3 * b_step, c);
      a += 8;
      b += 4 * b_step;
    }
    for (; k < steps; ++k) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) x[r] = vreinterpretq_s16_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(a + r * a_stride)));
      step<R, 0>(x, b, c);
      a += 2;
      b += b_step;
    }
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) vst1q_s32(out + r * width + 4 * h, c[r][h]);
  }
};

}  // namespace
}  // namespace sqb
