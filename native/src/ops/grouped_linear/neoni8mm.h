// smmla on 128 bits: a square of two rows by two output channels, each a sum of eight products, signed by signed: twice
// the products of sdot. Eight rows by eight output channels: 16 sums, 4 weights and 4 activations of the 32 registers.
// smmla wants eight channels of one output side by side where a panel holds four, so two steps' weights are zipped as they
// come (a zip for every four smmla), and so are pairs of rows (one for every four). Exact.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

struct NeonI8mmTile {
  static constexpr bool kFused = false;
  static constexpr int rows(int) { return 8; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    for (int column = 0; column < 16 * V; column += 8)
      part<R>(a, a_stride, reinterpret_cast<const int8_t*>(b) + 4 * column, 64 * V, steps, start, full, out, column, 16 * V);
  }

  static int8x16_t low_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
  }
  static int8x16_t high_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
  }

  // Eight channels of P pairs of rows times eight output channels, whose first and last four channels are `low` and `high`.
  template <int P>
  [[gnu::always_inline]] static inline void step(const int8x16_t (&x)[P], const int8_t* low, const int8_t* high, int32x4_t (&c)[P][4]) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const int32x4_t first = vreinterpretq_s32_s8(vld1q_s8(low + 16 * h));
      const int32x4_t last = high ? vreinterpretq_s32_s8(vld1q_s8(high + 16 * h)) : vdupq_n_s32(0);
      const int8x16_t w0 = vreinterpretq_s8_s32(vzip1q_s32(first, last)), w1 = vreinterpretq_s8_s32(vzip2q_s32(first, last));
#pragma GCC unroll 4
      // In assembly and volatile, which keeps the order: g++ spills sums otherwise.
      for (int p = 0; p < P; ++p) {
        asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(c[p][2 * h]) : "w"(x[p]), "w"(w0));
        asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(c[p][2 * h + 1]) : "w"(x[p]), "w"(w1));
      }
    }
  }

  // Eight output channels, from `column` of `width` on.
  template <int R>
  static void part(const int8_t* a, ptrdiff_t a_stride, const int8_t* b, ptrdiff_t b_step, int steps, const int32_t* start,
                   bool full, int32_t* out, int column, int width) {
    constexpr int P = (R + 1) / 2;
    // Of an odd number of rows the last stands for its missing neighbour, too.
    const auto row = [](int i) { return i < R ? i : R - 1; };
    int32x4_t c[P][4];  // [pair][two output channels]: row 0, row 0, row 1, row 1
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h)
        c[p][h] = full ? vcombine_s32(vld1_s32(start + row(2 * p) * width + column + 2 * h),
                                      vld1_s32(start + row(2 * p + 1) * width + column + 2 * h))
                       : vcombine_s32(vdup_n_s32(start[row(2 * p)]), vdup_n_s32(start[row(2 * p + 1)]));
    int8x16_t x[P], y[P];
    int k = 0;
    for (; k + 4 <= steps; k += 4) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const int8x16_t first = vld1q_s8(a + row(2 * p) * a_stride), second = vld1q_s8(a + row(2 * p + 1) * a_stride);
        x[p] = low_halves(first, second);
        y[p] = high_halves(first, second);
      }
      step<P>(x, b, b + b_step, c);
      step<P>(y, b + 2 * b_step, b + 3 * b_step, c);
      a += 16;
      b += 4 * b_step;
    }
    for (; k < steps; k += 2) {
      // Beyond the last step activations are zero or meet no weights.
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) x[p] = vcombine_s8(vld1_s8(a + row(2 * p) * a_stride), vld1_s8(a + row(2 * p + 1) * a_stride));
      step<P>(x, b, k + 1 < steps ? b + b_step : nullptr, c);
      a += 8;
      b += 2 * b_step;
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int h = 0; h < 4; h += 2) {
        vst1q_s32(out + 2 * p * width + column + 2 * h, vcombine_s32(vget_low_s32(c[p][h]), vget_low_s32(c[p][h + 1])));
        if (2 * p + 1 < R)
          vst1q_s32(out + (2 * p + 1) * width + column + 2 * h, vcombine_s32(vget_high_s32(c[p][h]), vget_high_s32(c[p][h + 1])));
      }
  }
};

}  // namespace
}  // namespace sqb
