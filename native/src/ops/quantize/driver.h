// The formula of ops/quantize.h on sixteen floats.
#pragma once

#include "ops/quantize.h"
#include "simd/f32x16.h"

namespace sqb {
namespace {

template <bool symmetric>
inline void quantize_block(const float* x, int n, float floor, int8_t* q, int stride, float& scale, int32_t& zero,
                           int32_t& sum_out, int32_t& wide_count, Wide* wide) {
  const int whole = n / 16 * 16;
  F32x16 top16 = set1(0.0f), sum16 = set1(0.0f);
  const auto look = [&](F32x16 v) {
    const F32x16 a = abs(v);
    sum16 = sum16 + a;
    top16 = max(symmetric ? a : v, top16);
  };
  for (int i = 0; i < whole; i += 16) look(load(x + i));
  if (whole < n) look(load_first(x + whole, n - whole));
  float top = largest(top16);
  const float limit = sum(sum16) * ((n > 192 ? static_cast<float>(n) / 12.0f : 16.0f) / static_cast<float>(n));
  const bool has_wide = top > limit;
  if (has_wide) {
    F32x16 rest = set1(0.0f);
    const auto look_again = [&](F32x16 v) { rest = max(zero_above(symmetric ? abs(v) : v, set1(limit)), rest); };
    for (int i = 0; i < whole; i += 16) look_again(load(x + i));
    if (whole < n) look_again(load_first(x + whole, n - whole));
    const float least = top * (1.0f / 4096.0f), found = largest(rest);
    top = found > least ? found : least;
  }
  const float range = top + floor;
  const float levels = symmetric ? 127.0f : 252.0f;
  const bool empty = !(range > 1e-30f);
  const float inverse = empty ? 0.0f : levels / range;
  const float below = symmetric ? 0.0f : std::ceil(floor * inverse);
  const float shift = symmetric || empty ? 0.0f : below - 127.0f;
  scale = empty ? 0.0f : range / levels;
  zero = static_cast<int32_t>(-shift);
  wide_count = 0;
  F32x16 total = set1(0.0f);
  if (!has_wide) {
    // |x * inverse| rounds to 127 at most: nothing to hold back.
    for (int i = 0; i < whole; i += 16) {
      F32x16 v = round(load(x + i) * set1(inverse));
      if constexpr (!symmetric) v = v + set1(shift);
      total = total + v;
      store_int8(q + i, v);
    }
  }
  for (int i = has_wide ? 0 : whole; i < stride; i += 16) {
    const int left = n - i;
    F32x16 v = left >= 16 ? load(x + i) : left > 0 ? load_first(x + i, left) : set1(0.0f);
    v = round(v * set1(inverse)) + set1(shift);
    if (left < 16) v = fill_beyond(v, left > 0 ? left : 0, 0.0f);
    const F32x16 clamped = max(min(v, set1(127.0f)), set1(-127.0f));
    total = total + clamped;
    store_int8(q + i, clamped);
    if (has_wide) {
      float all[16];
      store(all, v);
      for (int j = 0; j < 16; ++j) {
        const float excess = all[j] > 127.0f ? all[j] - 127.0f : all[j] < -127.0f ? all[j] + 127.0f : 0.0f;
        if (excess != 0.0f && wide_count < kMostWide) wide[wide_count++] = {i + j, static_cast<int32_t>(excess)};
      }
    }
  }
  sum_out = static_cast<int32_t>(sum(total));
}

inline void quantize_rows(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  const auto block = floor == 0.0f ? quantize_block<true> : quantize_block<false>;
  for (int r = 0; r < rows; ++r)
    for (int b = 0; b < out.blocks; ++b) {
      const ptrdiff_t place = static_cast<ptrdiff_t>(r) * out.blocks + b;
      block(x + r * x_stride + static_cast<ptrdiff_t>(b) * out.block_size, out.block_size, floor,
            out.values + r * out.row_stride + static_cast<ptrdiff_t>(b) * out.block_stride, out.block_stride,
            out.scale[place], out.zero[place], out.sum[place], out.wide_count[place], out.wide + place * kMostWide);
    }
}

}  // namespace
}  // namespace sqb
