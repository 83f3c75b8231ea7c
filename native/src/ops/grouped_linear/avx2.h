// Without VNNI: vpmaddwd on int16, eight int32 sums of two products, and an addition. (vpmaddubsw would take twice as
// many products, but its int16 sums saturate.) Six rows by sixteen output channels; see simd/madd.h. Activations come widened, two channels a time, from memory; weights (w + 128)
// are widened by the first tile, which leaves them for the others; see widening.h. Exact.
//
// Zen 3: two vpmaddwd a cycle alone, but 1.6 with an addition each, however ordered: 26 products a cycle.
#pragma once

#include "simd/madd.h"

namespace sqb {
namespace {

struct Avx2Tile {
  static constexpr int kRows = 6;

  // Int8 to int16, for each four channels: 0, 2, 1, 3. count: a multiple of 4; `x` may be read up to the next multiple
  // of 16, and `out` is written as far.
  static void widen(const int8_t* x, int count, int16_t* out) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7, 8,
                                           9, 12, 13, 10, 11, 14, 15);
    for (int i = 0; i < count; i += 16) {
      const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
      store_bytes(out + i, _mm256_shuffle_epi8(wide, order));
    }
  }

  // The lower byte of each 16 bits. The mask stays in memory: there is no register for it.
  static __m256i load_low(const uint8_t* p) {
    alignas(32) static constexpr uint8_t mask[32] = {255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0,
                                                     255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0};
    __m256i x = load_bytes(p);
    asm("vpand %1, %0, %0" : "+x"(x) : "m"(mask));
    return x;
  }

  // b: packed weights, b_step bytes from four channels to the next; or null: `wide` holds them, widened. With keep, they
  // are left there: [steps][channels 0, 2 | 1, 3][16][2] int16.
  template <int R, bool packed, bool keep>
  static void sums(const int16_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, uint8_t* wide, int steps,
                   const int32_t* start, bool full, int32_t* out) {
    __m256i c[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h)
        c[r][h] = full ? load_bytes(start + r * 16 + 8 * h) : _mm256_set1_epi32(start[r]);
    for (int k = 0; k < steps; ++k) {
      if constexpr (packed) {
        const __m256i even0 = load_low(b), even1 = load_low(b + 32);
        if constexpr (keep) store_bytes(wide, even0), store_bytes(wide + 32, even1);
        add_products<R>(a, a_stride, even0, even1, c);
        const __m256i odd0 = _mm256_srli_epi16(load_bytes(b), 8), odd1 = _mm256_srli_epi16(load_bytes(b + 32), 8);
        if constexpr (keep) store_bytes(wide + 64, odd0), store_bytes(wide + 96, odd1);
        add_products<R>(a + 2, a_stride, odd0, odd1, c);
        b += b_step;
      } else {
        add_products<R>(a, a_stride, load_bytes(wide), load_bytes(wide + 32), c);
        add_products<R>(a + 2, a_stride, load_bytes(wide + 64), load_bytes(wide + 96), c);
      }
      a += 4;
      wide += 128;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) store_bytes(out + r * 16 + 8 * h, c[r][h]);
  }
};

}  // namespace
}  // namespace sqb
