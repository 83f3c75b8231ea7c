// sdot on 128 bits: four int32 sums of four products, signed by signed, the activations' four bytes taken from a lane.
// Five rows by sixteen output channels: 20 sums, 4 weights and 5 activations of the 32 registers. A step of 20 sdot needs
// four loads of weights and, of four steps, five of activations, so that two sdot a cycle (Cortex-A76) or four (Cortex-X2)
// are never short of loads or, with 20 independent sums, of latency. A panel is taken sixteen channels at a time. Exact.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

struct NeonDotTile {
  static constexpr bool kFused = false;
  static constexpr int rows(int) { return 5; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    for (int v = 0; v < V; ++v)
      part<R>(a, a_stride, reinterpret_cast<const int8_t*>(b) + 64 * v, 64 * V, steps, start, full, out, 16 * v, 16 * V);
  }

  template <int R, int lane>
  [[gnu::always_inline]] static inline void step(const int8x16_t (&x)[R], const int8_t* b, int32x4_t (&c)[R][4]) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      const int8x16_t w = vld1q_s8(b + 16 * h);
#pragma GCC unroll 5
      // In assembly and volatile, which keeps the order: g++ sorts them by sum otherwise, each waiting for the one before.
      for (int r = 0; r < R; ++r)
        asm volatile("sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(c[r][h]) : "w"(w), "w"(x[r]), "i"(lane));
    }
  }

  // Sixteen output channels, from `column` of `width` on.
  template <int R>
  static void part(const int8_t* a, ptrdiff_t a_stride, const int8_t* b, ptrdiff_t b_step, int steps, const int32_t* start,
                   bool full, int32_t* out, int column, int width) {
    int32x4_t c[R][4];
#pragma GCC unroll 5
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) c[r][h] = full ? vld1q_s32(start + r * width + column + 4 * h) : vdupq_n_s32(start[r]);
    int8x16_t x[R];
    int k = 0;
    for (; k + 4 <= steps; k += 4) {
#pragma GCC unroll 5
      for (int r = 0; r < R; ++r) x[r] = vld1q_s8(a + r * a_stride);
      step<R, 0>(x, b, c);
      step<R, 1>(x, b + b_step, c);
      step<R, 2>(x, b + 2 * b_step, c);
      step<R, 3>(x, b + 3 * b_step, c);
      a += 16;
      b += 4 * b_step;
    }
    for (; k < steps; ++k) {
#pragma GCC unroll 5
      for (int r = 0; r < R; ++r) x[r] = vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(a + r * a_stride)));
      step<R, 0>(x, b, c);
      a += 4;
      b += b_step;
    }
#pragma GCC unroll 5
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) vst1q_s32(out + r * width + column + 4 * h, c[r][h]);
  }
};

}  // namespace
}  // namespace sqb
