// The formula of ops/quantize.h, one value at a time.
#include <algorithm>

#include "ops/reference.h"
#include "ops/reference_math.h"

namespace sqb::reference {

void quantize(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out) {
  const int n = out.block_size;
  const bool symmetric = floor == 0.0f;
  for (int r = 0; r < rows; ++r)
    for (int b = 0; b < out.blocks; ++b) {
      const float* v = x + r * x_stride + static_cast<ptrdiff_t>(b) * n;
      const ptrdiff_t place = static_cast<ptrdiff_t>(r) * out.blocks + b;
      float top = 0.0f;
      LaneSum sizes;
      for (int i = 0; i < n; ++i) {
        top = std::max(top, symmetric ? std::fabs(v[i]) : v[i]);
        sizes.lane[i % 16] += std::fabs(v[i]);
      }
      const float limit = sizes.total() * ((n > 192 ? static_cast<float>(n) / 12.0f : 16.0f) / static_cast<float>(n));
      const bool has_wide = top > limit;
      if (has_wide) {
        float rest = 0.0f;
        for (int i = 0; i < n; ++i) {
          const float size = symmetric ? std::fabs(v[i]) : v[i];
          if (size <= limit) rest = std::max(rest, size);
        }
        top = std::max(rest, top * (1.0f / 4096.0f));
      }
      const float range = top + floor, levels = symmetric ? 127.0f : 252.0f;
      const bool empty = !(range > 1e-30f);
      const float inverse = empty ? 0.0f : levels / range;
      const float shift = symmetric || empty ? 0.0f : std::ceil(floor * inverse) - 127.0f;
      out.scale[place] = empty ? 0.0f : range / levels;
      out.zero[place] = static_cast<int32_t>(-shift);
      out.sum[place] = 0;
      out.wide_count[place] = 0;
      int8_t* q = out.values + r * out.row_stride + static_cast<ptrdiff_t>(b) * out.block_stride;
      for (int i = 0; i < out.block_stride; ++i) {
        const float value = i < n ? std::nearbyint(v[i] * inverse) + shift : 0.0f;
        const float clamped = std::max(-127.0f, std::min(127.0f, value));
        q[i] = static_cast<int8_t>(clamped);
        out.sum[place] += q[i];
        if (has_wide && value != clamped && out.wide_count[place] < kMostWide)
          out.wide[place * kMostWide + out.wide_count[place]++] = {i, static_cast<int32_t>(value - clamped)};
      }
    }
}

}  // namespace sqb::reference
