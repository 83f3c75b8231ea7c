// The loops around a tile of an instruction set that multiplies int16: activations are widened once a call, weights by
// the first tile of rows that meets them.
//
// Order: panel, block of channels, sixteen output channels, rows. Sixteen output channels of 192 inputs are 6 KB of int16
// and of 768 inputs 24 KB, so they stay in L1 while all rows pass by, and weights in memory stay int8.
#pragma once

#include "ops/grouped_linear/finish.h"

namespace sqb {
namespace {

template <class Tile>
struct WideningDriver {
  using SumsFn = void (*)(const int16_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, uint8_t* wide, int steps,
                          const int32_t* start, bool full, int32_t* out);

  template <bool packed, bool keep>
  static SumsFn choose(int rows) {
    static_assert(Tile::kRows <= kMostTileRows, "a case for each number of rows");
    switch (rows) {
#define SQB_ROWS(n) \
  case n:           \
    if constexpr (n <= Tile::kRows) return Tile::template sums<n, packed, keep>;
      SQB_EACH_ROWS(SQB_ROWS)
#undef SQB_ROWS
    }
    return nullptr;
  }

  template <Activation activation>
  static void run(const LinearCall& call) {
    const LinearWeights& w = *call.weights;
    const Quantized& x = *call.x;
    if (call.first_panel == call.last_panel) return;
    // The blocks that these panels read.
    const int first_block = (w.panels[call.first_panel].group - call.x_first_group) * w.blocks;
    const int blocks = (w.panels[call.last_panel - 1].group - call.x_first_group + 1) * w.blocks - first_block;
    const int steps = w.block_padded / 4, padded = round_up(w.block_padded, 16);
    const ptrdiff_t a_stride = static_cast<ptrdiff_t>(blocks) * padded;
    // As linear_scratch counts: widened weights; widened activations; starts of sums, [blocks][rows].
    const size_t wide_bytes = static_cast<size_t>(steps) * 128, row_bytes = sizeof(int16_t) * static_cast<size_t>(a_stride);
    uint8_t* wide = call.scratch;
    auto* activations = reinterpret_cast<int16_t*>(wide + wide_bytes);
    auto* starts = reinterpret_cast<int32_t*>(wide + wide_bytes + row_bytes * static_cast<size_t>(call.rows));
    bool has_zero = false, has_wide = false;
    for (int r = 0; r < call.rows; ++r)
      for (int b = 0; b < blocks; ++b) {
        Tile::widen(x.values + r * x.row_stride + static_cast<ptrdiff_t>(first_block + b) * x.block_stride, w.block_padded,
                    activations + r * a_stride + static_cast<ptrdiff_t>(b) * padded);
        const ptrdiff_t place = static_cast<ptrdiff_t>(r) * x.blocks + first_block + b;
        starts[static_cast<ptrdiff_t>(b) * call.rows + r] = w.plus128 ? -128 * x.sum[place] : 0;
        has_zero |= x.zero[place] != 0;
        has_wide |= x.wide_count[place] != 0;
      }

    const int tiles = (call.rows + Tile::kRows - 1) / Tile::kRows, low = call.rows / tiles, high_tiles = call.rows % tiles;
    const int high = low + (high_tiles > 0);
    const SumsFn first_fn = tiles > 1 ? choose<true, true>(high) : choose<true, false>(high);
    const SumsFn high_fn = choose<false, false>(high), low_fn = choose<false, false>(low);
    alignas(64) int32_t each[Tile::kRows * 16];
    alignas(64) int32_t sums[Tile::kRows * 16];
    for (int p = call.first_panel; p < call.last_panel; ++p) {
      const Panel& panel = w.panels[p];
      const ptrdiff_t b_step = 64 * panel.vectors;
      for (int block = 0; block < w.blocks; ++block) {
        const int x_block = (panel.group - call.x_first_group) * w.blocks + block;
        const int16_t* a = activations + static_cast<ptrdiff_t>(x_block - first_block) * padded;
        const uint8_t* base = w.data + panel.offset + block * steps * b_step;
        const FollowFn follow_fn = choose_follow<1>(ending_of(call, block, has_zero));
        for (int v = 0; v < panel.vectors; ++v) {
          const bool whole = panel.columns >= 16 * (v + 1);
          const uint8_t* b = base + 64 * v;
          // While the rows pass by, the next weights come into the cache, a part with each tile.
          const bool at_end = p + 1 == call.last_panel && block + 1 == w.blocks;
          const uint8_t* ahead = v + 1 < panel.vectors ? b + 64 : at_end ? call.next : base + steps * b_step;
          const int ahead_lines = ahead == nullptr ? 0 : (steps + tiles - 1) / tiles;
          Following then{x.scale + x_block, x.zero + x_block, x.blocks, w.scale + p * 64 + 16 * v, w.bias + p * 64 + 16 * v,
                         w.sums + (static_cast<ptrdiff_t>(p) * w.blocks + block) * 64 + 16 * v,
                         call.y + panel.column - call.y_column + 16 * v, call.y_stride};
          for (int tile = 0, row = 0; tile < tiles; ++tile) {
            const int rows = low + (tile < high_tiles);
            for (int i = 0; i < ahead_lines; ++i) __builtin_prefetch(ahead + i * b_step);
            ahead += ahead_lines * b_step;
            const int32_t* start = starts + static_cast<ptrdiff_t>(x_block - first_block) * call.rows + row;
            if (has_wide)
              for (int r = 0; r < rows; ++r) {
                for (int c = 0; c < 16; ++c) each[r * 16 + c] = start[r];
                const ptrdiff_t place = static_cast<ptrdiff_t>(row + r) * x.blocks + x_block;
                add_wide(w, b, b_step, 16, x.wide + place * kMostWide, x.wide_count[place], each + r * 16);
              }
            (tile == 0 ? first_fn : tile < high_tiles ? high_fn : low_fn)(a + row * a_stride, a_stride, b, b_step, wide, steps,
                                                                          has_wide ? each : start, has_wide, sums);
            if (whole && follow_fn != nullptr)
              follow_fn(sums, rows, then);
            else
              finish<activation>(call, panel, p, block, row, rows, v, 1, sums);
            then.x_scale += rows * then.x_step;
            then.zero += rows * then.x_step;
            then.y += rows * then.y_stride;
            row += rows;
          }
        }
      }
    }
  }

  static void linear(const LinearCall& call) { run_activation<WideningDriver>(call); }
};

}  // namespace
}  // namespace sqb
