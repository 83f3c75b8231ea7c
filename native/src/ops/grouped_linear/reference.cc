// The formula of ops/grouped_linear.h, one output at a time.
#include "ops/reference.h"
#include "ops/reference_math.h"

namespace sqb::reference {

void grouped_linear(const LinearCall& call) {
  const LinearWeights& w = *call.weights;
  const Quantized& x = *call.x;
  const int offset = w.plus128 ? 128 : 0;
  for (int p = call.first_panel; p < call.last_panel; ++p) {
    const Panel& panel = w.panels[p];
    const int width = panel.vectors * 16;
    for (int row = 0; row < call.rows; ++row)
      for (int c = 0; c < panel.columns; ++c) {
        float y = 0;
        for (int b = 0; b < w.blocks; ++b) {
          const int x_block = (panel.group - call.x_first_group) * w.blocks + b;
          const ptrdiff_t place = static_cast<ptrdiff_t>(row) * x.blocks + x_block;
          const uint8_t* weight = w.data + panel.offset + static_cast<ptrdiff_t>(b) * w.block_padded * width + 4 * c;
          const auto at = [&](int k) {
            const uint8_t byte = weight[static_cast<ptrdiff_t>(k / 4) * width * 4 + k % 4];
            return offset ? static_cast<int32_t>(byte) - offset : static_cast<int32_t>(static_cast<int8_t>(byte));
          };
          const int8_t* q = x.values + row * x.row_stride + static_cast<ptrdiff_t>(x_block) * x.block_stride;
          int32_t sum = 0;
          for (int k = 0; k < w.block_padded; ++k) sum += q[k] * at(k);
          for (int i = 0; i < x.wide_count[place]; ++i)
            sum += x.wide[place * kMostWide + i].excess * at(x.wide[place * kMostWide + i].place);
          const float t = mul_add(static_cast<float>(x.zero[place]),
                                   w.sums[(static_cast<ptrdiff_t>(p) * w.blocks + b) * 64 + c], static_cast<float>(sum));
          y = b == 0 ? t * x.scale[place] : mul_add(t, x.scale[place], y);
        }
        call.y[row * call.y_stride + panel.column + c - call.y_column] =
            activate(call.activation, mul_add(y, w.scale[p * 64 + c], w.bias[p * 64 + c]));
      }
  }
}

}  // namespace sqb::reference
