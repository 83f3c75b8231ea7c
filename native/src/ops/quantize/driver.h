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

template <bool symmetric>
inline void quantize_places(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  constexpr int kTogether = 4;
  const ptrdiff_t places = static_cast<ptrdiff_t>(rows) * out.blocks;
  const float* from[kTogether];
  int8_t* to[kTogether];
  const auto find = [&](ptrdiff_t place, int i) {
    const ptrdiff_t row = place / out.blocks, block = place % out.blocks;
    from[i] = x + row * x_stride + block * out.block_size;
    to[i] = out.values + row * out.row_stride + block * out.block_stride;
  };
  ptrdiff_t place = 0;
  for (; place + kTogether <= places; place += kTogether) {
    for (int i = 0; i < kTogether; ++i) find(place + i, i);
    quantize_blocks<symmetric, kTogether>(from, floor, out, to, place);
  }
  for (; place < places; ++place) {
    find(place, 0);
    quantize_blocks<symmetric, 1>({from[0]}, floor, out, {to[0]}, place);
  }
}

inline void quantize_rows(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  if (floor == 0.0f)
    quantize_places<true>(x, x_stride, rows, floor, out);
  else
    quantize_places<false>(x, x_stride, rows, floor, out);
}

}  // namespace
}  // namespace sqb
