// The loops around tdpbssd: sixteen rows by sixteen output channels by 64 channels in one instruction. Exact.
//
// Order: panel, block of channels, 32 rows, 32 output channels: a turn is four tiles of sums, for which two tiles of rows and
// two of weights are loaded per step. Sums go through memory, 4 KB of L1. What follows them is done while the next turn's
// products are under way, and before that one's sums are stored: into the same place, since loads from one 4 KB wait for
// stores to another. Blocks are padded to whole tiles (Packing::multiple).
//
// While the rows pass by a block of weights, most of the next one comes into L2, line by line between other instructions: where
// blocks are long, between products, else between the vectors that follow the sums. In bursts it came at the same rate, but
// all else waited.
#pragma once

#include "ops/grouped_linear/finish.h"
#include "simd/amx.h"

namespace sqb {
namespace {

struct AmxDriver {
  static constexpr int kRows = 2 * kTileRows;
  static constexpr int kManySteps = 5;  // of 64 channels: their products take longer than what follows

  // row_tiles by `vectors` tiles of sums, which stay in tiles 0 to 3. b: [steps * 16][b_stride bytes]. Each step fetches so
  // many lines from `ahead` on.
  template <int row_tiles, int vectors>
  static void multiply(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_stride, int steps, const uint8_t* ahead,
                       int lines) {
    zero_tile<0>();
    if constexpr (vectors == 2) zero_tile<1>();
    if constexpr (row_tiles == 2) zero_tile<2>();
    if constexpr (row_tiles == 2 && vectors == 2) zero_tile<3>();
    for (int k = 0; k < steps; ++k) {
      for (int i = 0; i < lines; ++i, ahead += 64) __builtin_prefetch(ahead, 0, 2);
      load_tile<6>(b, b_stride);
      load_tile<4>(a, a_stride);
      dot_tiles<true, true, 0, 4, 6>();
      if constexpr (vectors == 2) {
        load_tile<7>(b + kTileBytes, b_stride);
        dot_tiles<true, true, 1, 4, 7>();
      }
      if constexpr (row_tiles == 2) {
        load_tile<5>(a + kTileRows * a_stride, a_stride);
        dot_tiles<true, true, 2, 5, 6>();
        if constexpr (vectors == 2) dot_tiles<true, true, 3, 5, 7>();
      }
      a += kTileBytes;
      b += kTileRows * b_stride;
    }
  }
  // out: [rows][vectors * 16].
  template <int row_tiles, int vectors>
  static void store_sums(int32_t* out) {
    auto* at = reinterpret_cast<uint8_t*>(out);
    constexpr ptrdiff_t stride = vectors * kTileBytes;
    store_tile<0>(at, stride);
    if constexpr (vectors == 2) store_tile<1>(at + kTileBytes, stride);
    if constexpr (row_tiles == 2) store_tile<2>(at + kTileRows * stride, stride);
    if constexpr (row_tiles == 2 && vectors == 2) store_tile<3>(at + kTileRows * stride + kTileBytes, stride);
  }

  // Sums that wait for what follows them.
  struct Turn {
    const int32_t* sums = nullptr;  // of `row`
    int panel, block, row, rows, first_vector, vectors;
    FollowFn follow;  // null: separate
  };

  template <Activation activation>
  static void follow_turn(const LinearCall& call, const Turn& turn, const uint8_t* ahead, int lines) {
    const LinearWeights& w = *call.weights;
    const Panel& panel = w.panels[turn.panel];
    if (turn.follow == nullptr) {
      finish<activation>(call, panel, turn.panel, turn.block, turn.row, turn.rows, turn.first_vector, turn.vectors, turn.sums);
      return;
    }
    const Quantized& x = *call.x;
    const int first = 16 * turn.first_vector;
    const ptrdiff_t place = static_cast<ptrdiff_t>(turn.row) * x.blocks + (panel.group - call.x_first_group) * w.blocks + turn.block;
    const ptrdiff_t channel = turn.panel * 64 + first;
    turn.follow(turn.sums, turn.rows,
                {x.scale + place, x.zero + place, x.blocks, w.scale + channel, w.bias + channel,
                 w.sums + (static_cast<ptrdiff_t>(turn.panel) * w.blocks + turn.block) * 64 + first,
                 call.y + turn.row * call.y_stride + panel.column - call.y_column + first, call.y_stride, ahead, lines});
  }

  template <Activation activation>
  static void run(const LinearCall& call) {
    const LinearWeights& w = *call.weights;
    const Quantized& x = *call.x;
    alignas(64) int32_t out[kRows * 32];
    bool has_zero = false, has_wide = false;
    if (call.first_panel == call.last_panel) return;
    const int first_block = (w.panels[call.first_panel].group - call.x_first_group) * w.blocks;
    const int last_block = (w.panels[call.last_panel - 1].group - call.x_first_group + 1) * w.blocks;
    for (int r = 0; r < call.rows; ++r)
      for (ptrdiff_t i = static_cast<ptrdiff_t>(r) * x.blocks + first_block, end = i + last_block - first_block; i < end; ++i) {
        has_zero |= x.zero[i] != 0;
        has_wide |= x.wide_count[i] != 0;
      }
    const int steps = w.block_padded / kTileBytes;
    const int most = call.rows < kRows ? call.rows : kRows;
    configure_tiles(most < kTileRows ? most : kTileRows, most - kTileRows);
    Turn waiting;
    for (int p = call.first_panel; p < call.last_panel; ++p) {
      const Panel& panel = w.panels[p];
      const ptrdiff_t b_stride = static_cast<ptrdiff_t>(panel.vectors) * kTileBytes;
      for (int block = 0; block < w.blocks; ++block) {
        const int x_block = (panel.group - call.x_first_group) * w.blocks + block;
        const ptrdiff_t bytes = w.block_padded / 4 * b_stride;
        const uint8_t* b = w.data + panel.offset + block * bytes;
        const Ending ending = ending_of(call, block, has_zero);
        const bool at_end = p + 1 == call.last_panel && block + 1 == w.blocks;
        const uint8_t* ahead = at_end ? call.next : b + bytes;
        const int turns = (call.rows + kRows - 1) / kRows * ((panel.vectors + 1) / 2);
        const int lines = ahead == nullptr ? 0 : static_cast<int>(bytes / 64) / turns;
        // Where blocks are short, what follows the sums takes most of the time: a line for each of its vectors.
        const bool separate = ending == Ending::separate || panel.columns < 16 * panel.vectors;
        const int spare = steps < kManySteps && !separate ? most * (panel.vectors > 1 ? 2 : 1) : 0;
        const int follow_lines = lines < spare ? lines : spare;
        const int step_lines = (lines - follow_lines + steps - 1) / steps;
        const ptrdiff_t turn_bytes = 64 * static_cast<ptrdiff_t>(step_lines) * steps;
        for (int row = 0; row < call.rows;) {
          // The last rows join some before them, whose sums are made once more, so that tiles keep their height.
          const int left = call.rows - row, rows = left < kRows ? left : kRows;
          const int height = rows > kTileRows || most < kRows ? most : kTileRows;
          const int again = height - rows;
          const int8_t* a = x.values + (row - again) * x.row_stride + static_cast<ptrdiff_t>(x_block) * x.block_stride;
          for (int v = 0; v < panel.vectors; v += 2) {
            const int vectors = v + 1 < panel.vectors ? 2 : 1;
            const uint8_t* weights = b + v * kTileBytes;
            const auto turn = [&](auto multiply, auto store_sums) {
              multiply(a, x.row_stride, weights, b_stride, steps, ahead, step_lines);
              if (waiting.sums != nullptr) follow_turn<activation>(call, waiting, ahead + turn_bytes, follow_lines);
              store_sums(out);
              ahead += turn_bytes + 64 * static_cast<ptrdiff_t>(follow_lines);
            };
            if (height > kTileRows)
              vectors == 2 ? turn(multiply<2, 2>, store_sums<2, 2>) : turn(multiply<2, 1>, store_sums<2, 1>);
            else
              vectors == 2 ? turn(multiply<1, 2>, store_sums<1, 2>) : turn(multiply<1, 1>, store_sums<1, 1>);
            int32_t* mine = out + again * vectors * 16;
            if (has_wide)
              for (int r = 0; r < rows; ++r) {
                const ptrdiff_t at = static_cast<ptrdiff_t>(row + r) * x.blocks + x_block;
                add_wide(w, weights, b_stride, vectors * 16, x.wide + at * kMostWide, x.wide_count[at], mine + r * vectors * 16);
              }
            const bool whole = panel.columns >= 16 * (v + vectors);
            waiting = {mine, p, block, row, rows, v, vectors,
                       !whole ? nullptr : vectors == 2 ? choose_follow<2>(ending) : choose_follow<1>(ending)};
          }
          row += rows;
        }
      }
    }
    if (waiting.sums != nullptr) follow_turn<activation>(call, waiting, nullptr, 0);
    release_tiles();
  }

  static void linear(const LinearCall& call) { run_activation<AmxDriver>(call); }
};

}  // namespace
}  // namespace sqb
