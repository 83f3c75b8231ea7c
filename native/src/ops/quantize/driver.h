// The formula of ops/quantize.h on sixteen floats.
#pragma once

#include "ops/quantize.h"
#include "simd/f32x16.h"

namespace sqb {
namespace {

// R blocks, places place .. place + R of `out`, at a time, since one block's sums wait for one another.
template <bool symmetric, int R>
inline void quantize_blocks(const float* const (&x)[R], float floor, const Quantized& out, int8_t* const (&q)[R], ptrdiff_t place) {
  const int n = out.block_size, whole = n / 16 * 16;
  F32x16 top16[R], sum16[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) top16[r] = sum16[r] = set1(0.0f);
  const auto look = [&](int r, F32x16 v) {
    const F32x16 a = abs(v);
    sum16[r] = sum16[r] + a;
    top16[r] = max(symmetric ? a : v, top16[r]);
  };
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) look(r, load(x[r] + i));
  if (whole < n)
    for (int r = 0; r < R; ++r) look(r, load_first(x[r] + whole, n - whole));

  const float levels = symmetric ? 127.0f : 252.0f;
  float inverse[R], shift[R];
  bool has_wide[R], is_plain = true;  // plain: finite, and nothing wide
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    float top = largest(top16[r]);
    const float all = sum(sum16[r]);
    const float limit = all * ((n > 192 ? static_cast<float>(n) / 12.0f : 16.0f) / static_cast<float>(n));
    has_wide[r] = top > limit;
    is_plain &= !has_wide[r] && all - all == 0.0f;
    if (has_wide[r]) {
      F32x16 rest = set1(0.0f);
      const auto look_again = [&](F32x16 v) { rest = max(zero_above(symmetric ? abs(v) : v, set1(limit)), rest); };
      for (int i = 0; i < whole; i += 16) look_again(load(x[r] + i));
      if (whole < n) look_again(load_first(x[r] + whole, n - whole));
      const float least = top * (1.0f / 4096.0f), found = largest(rest);
      top = found > least ? found : least;
    }
    const float range = top + floor;
    const bool empty = !(range > 1e-30f);
    inverse[r] = empty ? 0.0f : levels / range;
    const float below = symmetric ? 0.0f : std::ceil(floor * inverse[r]);
    shift[r] = symmetric || empty ? 0.0f : below - 127.0f;
    out.scale[place + r] = empty ? 0.0f : range / levels;
    out.zero[place + r] = static_cast<int32_t>(-shift[r]);
    out.wide_count[place + r] = 0;
  }

  // What is plain fits in int16 as it comes.
  const int first = is_plain ? n / 64 * 64 : 0;
  for (int i = 0; i < first; i += 64)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      F32x16 v[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) v[j] = load(x[r] + i + 16 * j) * set1(inverse[r]);
      store_int8(q[r] + i, v, symmetric ? 0 : static_cast<int>(shift[r]));
    }
  for (int r = 0; r < R; ++r) {
    F32x16 total = set1(0.0f);
    for (int i = first; i < out.block_stride; i += 16) {
      const int left = n - i;
      F32x16 v = left >= 16 ? load(x[r] + i) : left > 0 ? load_first(x[r] + i, left) : set1(0.0f);
      v = round(v * set1(inverse[r])) + set1(shift[r]);
      if (left < 16) v = fill_beyond(v, left > 0 ? left : 0, 0.0f);
      const F32x16 clamped = max(min(v, set1(127.0f)), set1(-127.0f));
      total = total + clamped;
      store_int8(q[r] + i, clamped);
      if (has_wide[r]) {
        float all[16];
        store(all, v);
        int32_t& count = out.wide_count[place + r];
        for (int j = 0; j < 16; ++j) {
          const float excess = all[j] > 127.0f ? all[j] - 127.0f : all[j] < -127.0f ? all[j] + 127.0f : 0.0f;
          if (excess != 0.0f && count < kMostWide) out.wide[(place + r) * kMostWide + count++] = {i + j, static_cast<int32_t>(excess)};
        }
      }
    }
    out.sum[place + r] = sum_int8(q[r], first) + static_cast<int32_t>(sum(total));
  }
}

#if SQB_SIMD_AVX512
// Sixteen blocks at a time, whose sums become one register.
template <bool symmetric>
inline void quantize_sixteen(const float* const (&x)[16], float floor, const Quantized& out, int8_t* const (&q)[16], ptrdiff_t place) {
  const int n = out.block_size, whole = n / 16 * 16;
  F32x16 top16[16], sum16[16];
  for (int r = 0; r < 16; ++r) {
    F32x16 top = set1(0.0f), total = set1(0.0f);
    const auto look = [&](F32x16 v) {
      const F32x16 a = abs(v);
      total = total + a;
      top = max(symmetric ? a : v, top);
    };
    for (int i = 0; i < whole; i += 16) look(load(x[r] + i));
    if (whole < n) look(load_first(x[r] + whole, n - whole));
    top16[r] = top;
    sum16[r] = total;
  }
  const F32x16 top = largest_of_each(top16), all = sum_of_each(sum16), difference = all - all;
  const F32x16 limit = all * set1((n > 192 ? static_cast<float>(n) / 12.0f : 16.0f) / static_cast<float>(n));
  const __mmask16 is_plain = _mm512_cmp_ps_mask(top.v, limit.v, _CMP_NGT_UQ) & _mm512_cmp_ps_mask(difference.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const float levels = symmetric ? 127.0f : 252.0f;
  const F32x16 range = top + set1(floor);
  const __mmask16 some = _mm512_cmp_ps_mask(range.v, _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
  const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(levels), range.v);
  const __m512 below = _mm512_roundscale_ps(_mm512_mul_ps(_mm512_set1_ps(floor), inverse), _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
  const __m512i shift = symmetric ? _mm512_setzero_si512() : _mm512_maskz_sub_epi32(some, _mm512_cvtps_epi32(below), _mm512_set1_epi32(127));
  _mm512_storeu_ps(out.scale + place, _mm512_maskz_div_ps(some, range.v, _mm512_set1_ps(levels)));
  _mm512_storeu_si512(out.zero + place, _mm512_sub_epi32(_mm512_setzero_si512(), shift));
  _mm512_storeu_si512(out.wide_count + place, _mm512_setzero_si512());
  alignas(64) float inverses[16];
  alignas(64) int32_t shifts[16];
  _mm512_store_ps(inverses, inverse);
  _mm512_store_si512(shifts, shift);
  for (int r = 0; r < 16; ++r) {
    if (!(is_plain >> r & 1)) continue;
    const F32x16 factor = set1(inverses[r]);
    for (int i = 0; i < n; i += 64) {
      F32x16 v[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) v[j] = load(x[r] + i + 16 * j) * factor;
      store_int8(q[r] + i, v, shifts[r]);
    }
  }
  _mm512_storeu_si512(out.sum + place, sum_int8_of_each(q, n));
  for (int r = 0; r < 16; ++r)
    if (!(is_plain >> r & 1)) quantize_blocks<symmetric, 1>({x[r]}, floor, out, {q[r]}, place + r);
}
#endif

template <bool symmetric>
inline void quantize_places(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  const ptrdiff_t places = static_cast<ptrdiff_t>(rows) * out.blocks;
  const auto from = [&](ptrdiff_t place) { return x + place / out.blocks * x_stride + place % out.blocks * out.block_size; };
  const auto to = [&](ptrdiff_t place) { return out.values + place / out.blocks * out.row_stride + place % out.blocks * out.block_stride; };
  ptrdiff_t place = 0;
#if SQB_SIMD_AVX512
  if (out.block_size % 64 == 0)  // so that nothing is left to fill with zeros
    for (; place + 16 <= places; place += 16) {
      const float* x16[16];
      int8_t* q16[16];
      for (int i = 0; i < 16; ++i) {
        x16[i] = from(place + i);
        q16[i] = to(place + i);
      }
      quantize_sixteen<symmetric>(x16, floor, out, q16, place);
    }
#endif
  for (; place + 4 <= places; place += 4)
    quantize_blocks<symmetric, 4>({from(place), from(place + 1), from(place + 2), from(place + 3)}, floor, out,
                                  {to(place), to(place + 1), to(place + 2), to(place + 3)}, place);
  for (; place < places; ++place) quantize_blocks<symmetric, 1>({from(place)}, floor, out, {to(place)}, place);
}

inline void quantize_rows(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  if (floor == 0.0f)
    quantize_places<true>(x, x_stride, rows, floor, out);
  else
    quantize_places<false>(x, x_stride, rows, floor, out);
}

}  // namespace
}  // namespace sqb
