#include <algorithm>

#include "ops/grouped_linear.h"

namespace sqb {

PackedLinear::PackedLinear(const int8_t* weight, const float* scale, const float* bias, int groups, int in, int out,
                           int blocks, Packing packing, Arena& arena, int panel_vectors) {
  const int block_size = in / blocks;
  const int padded = round_up(block_size, packing.multiple);
  size_t bytes = 0;
  for (int g = 0; g < groups; ++g)
    for (int c = 0; c < out; c += 16 * panel_vectors) {
      const int columns = std::min(16 * panel_vectors, out - c);
      const int vectors = (columns + 15) / 16;
      panels_.push_back({g, g * out + c, columns, vectors, bytes});
      bytes += static_cast<size_t>(blocks) * padded * vectors * 16;
    }
  uint8_t* data = arena.take(bytes);
  scale_ = AlignedBuffer<float>(panels_.size() * 64);
  bias_ = AlignedBuffer<float>(panels_.size() * 64);
  sums_ = AlignedBuffer<float>(panels_.size() * blocks * 64);
  const int offset = packing.plus128 ? 128 : 0;
  std::memset(data, offset, bytes);
  for (size_t p = 0; p < panels_.size(); ++p) {
    const Panel& panel = panels_[p];
    const int width = panel.vectors * 16;
    for (int c = 0; c < panel.columns; ++c) {
      const int8_t* row = weight + static_cast<size_t>(panel.column + c) * in;
      scale_[p * 64 + c] = scale[panel.column + c];
      bias_[p * 64 + c] = bias[panel.column + c];
      for (int b = 0; b < blocks; ++b) {
        uint8_t* target = data + panel.offset + static_cast<size_t>(b) * padded * width + 4 * c;
        int sum = 0;
        for (int k = 0; k < block_size; ++k) {
          const int w = row[b * block_size + k];
          sum += w;
          target[static_cast<size_t>(k / 4) * width * 4 + k % 4] = static_cast<uint8_t>(w + offset);
        }
        sums_[(p * blocks + b) * 64 + c] = static_cast<float>(sum);
      }
    }
  }
  view_ = {groups, in, out, blocks, padded, packing.plus128, packing.widens, panels_.data(), data, scale_.data(), bias_.data(), sums_.data()};
}

size_t linear_scratch(const LinearWeights& weights, int groups, int rows) {
  if (!weights.widens) return 0;
  // The weights of sixteen output channels and the rows as int16, starts of sums; see widening.h.
  const size_t blocks = static_cast<size_t>(groups) * weights.blocks;
  return static_cast<size_t>(weights.block_padded) * 32 +
         static_cast<size_t>(rows) * blocks * (sizeof(int16_t) * round_up(weights.block_padded, 16) + sizeof(int32_t));
}

int PackedLinear::panel_at(int column) const {
  const auto found = std::lower_bound(panels_.begin(), panels_.end(), column,
                                      [](const Panel& panel, int c) { return panel.column < c; });
  return static_cast<int>(found - panels_.begin());
}

}  // namespace sqb
