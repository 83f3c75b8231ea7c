// vpmaddwd on 256 bits and an addition: eight int32 sums of two products of int16. Six rows by sixteen columns; see
// simd/madd.h. Exact.
#pragma once

#include "simd/madd.h"

namespace sqb {
namespace {

struct Avx2Tile16 {
  static constexpr bool kFused = false;

  // Eight rows of eight pairs, `stride` int16 apart -> the other way round.
  static inline void transpose_eight(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    __m256i x[8], y[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i] = load_bytes(rows + i * stride);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
      y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
    // x[4 i + j] holds columns j and j + 4 of rows 4 i to 4 i + 3.
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
      x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
      x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
      x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
      x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      store_bytes(out + j * out_stride, _mm256_permute2x128_si256(x[j], x[4 + j], 0x20));
      store_bytes(out + (4 + j) * out_stride, _mm256_permute2x128_si256(x[j], x[4 + j], 0x31));
    }
  }

  // Sixteen rows of sixteen pairs.
  static inline void transpose_pairs(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    for (int i = 0; i < 16; i += 8)
      for (int j = 0; j < 16; j += 8) transpose_eight(rows + i * stride + 2 * j, stride, out + j * out_stride + 2 * i, out_stride);
  }

  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    for (int v = 0; v < V; ++v) part<R>(a, a_stride, b + 32 * v, 32 * V, steps, out + 16 * v, 16 * V);
  }

  // Sixteen of `width` columns.
  template <int R>
  static void part(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, ptrdiff_t b_step, int steps, int32_t* out, int width) {
    __m256i c[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) c[r][0] = c[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < steps; ++k) {
      add_products<R>(a, a_stride, load_bytes(b), load_bytes(b + 16), c);
      a += 2;
      b += b_step;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      store_bytes(out + r * width, c[r][0]);
      store_bytes(out + r * width + 8, c[r][1]);
    }
  }
};

}  // namespace
}  // namespace sqb
