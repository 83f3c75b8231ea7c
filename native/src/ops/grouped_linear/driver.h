// The loops around an instruction set's tile: panels, blocks, rows, and what follows the sums.
//
// A panel's block (12 KB for 64 outputs of 192 channels) stays in L1 while all rows pass by, in tiles of at most
// Tile::rows(vectors) rows, equal in height within one, so that none is too low to hide the latency of its sums.
#pragma once

#include "ops/grouped_linear/finish.h"

namespace sqb {
namespace {

// Inline assembly's letter for a vector register.
#if defined(__x86_64__)
#define SQB_VECTOR_REGISTER "v"
#elif defined(__aarch64__)
#define SQB_VECTOR_REGISTER "w"
#else
#define SQB_VECTOR_REGISTER "r"
#endif

// Tile::sums<rows, vectors>(a, a_stride, b, steps, start, sums): for each row r and each output channel c,
//   sums[r * vectors * 16 + c] = start + sum over `steps` times four channels of a[r] and b.
// start: one value per row, or where `full` is set, one per row and output channel.
template <class Tile>
struct Driver {
  using SumsFn = void (*)(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                          int32_t* sums);

  template <int vectors>
  static SumsFn choose(int rows) {
    switch (rows) {
#define SQB_ROWS(n) \
  case n:           \
    if constexpr (n <= Tile::rows(vectors)) return Tile::template sums<n, vectors>;
      SQB_EACH_ROWS(SQB_ROWS)
#undef SQB_ROWS
    }
    return nullptr;
  }

  static SumsFn choose(int rows, int vectors) {
    return vectors == 4 ? choose<4>(rows) : vectors == 3 ? choose<3>(rows) : vectors == 2 ? choose<2>(rows) : choose<1>(rows);
  }

  using FusedFn = void (*)(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, const Following& then);

  template <int rows, int vectors, Ending ending>
  static void fused(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start,
                    const Following& then) {
    typename Tile::Sums c[rows][vectors];
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) c[r][v] = Tile::splat(start[r]);
    Tile::template accumulate<rows, vectors>(a, a_stride, b, steps, c);
    // Nothing of what follows may be begun above: it would push sums out of registers.
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) asm volatile("" : "+" SQB_VECTOR_REGISTER(c[r][v]) : : "memory");
    // By columns: what a column needs stays in registers, and what a row needs comes with the instruction that uses it.
    const float* const x_scale = then.x_scale;
    const int32_t* const zero = then.zero;
    const ptrdiff_t x_step = then.x_step, y_stride = then.y_stride;
    float* y = then.y;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v, y += 16) {
      const Channels channels = channels_of<ending>(then, v);
#pragma GCC unroll 12
      for (int r = 0; r < rows; ++r)
        follow<ending>(F32x16{Tile::to_float(c[r][v])}, set1(x_scale[r * x_step]), zero + r * x_step, channels, y + r * y_stride);
    }
  }

  template <int vectors, Ending ending>
  static FusedFn choose_fused(int rows) {
    if constexpr (Tile::kFused) {
      switch (rows) {
#define SQB_ROWS(n) \
  case n:           \
    if constexpr (n <= Tile::rows(vectors)) return fused<n, vectors, ending>;
      SQB_EACH_ROWS(SQB_ROWS)
#undef SQB_ROWS
      }
    }
    (void)rows;
    return nullptr;
  }

  // Null: not fused; sums go through memory.
  static FusedFn choose_fused(int rows, int vectors, Ending ending) {
#define SQB_ENDING(name) \
  if (ending == Ending::name) return vectors == 4 ? choose_fused<4, Ending::name>(rows) : vectors == 2 ? choose_fused<2, Ending::name>(rows) : nullptr;
    SQB_ENDING(plain)
    SQB_ENDING(gelu)
    SQB_ENDING(zero)
    SQB_ENDING(first)
    SQB_ENDING(middle)
    SQB_ENDING(last)
#undef SQB_ENDING
    return nullptr;
  }

  template <Activation activation>
  static void run(const LinearCall& call) {
    const LinearWeights& w = *call.weights;
    const Quantized& x = *call.x;
    alignas(64) int32_t start[kMostTileRows * 64];
    alignas(64) int32_t sums[kMostTileRows * 64];
    bool has_zero = false;
    for (ptrdiff_t i = 0; i < static_cast<ptrdiff_t>(call.rows) * x.blocks; ++i) has_zero |= x.zero[i] != 0;
    for (int p = call.first_panel; p < call.last_panel; ++p) {
      const Panel& panel = w.panels[p];
      const int width = panel.vectors * 16;
      const int most = Tile::rows(panel.vectors);
      const int tiles = (call.rows + most - 1) / most;
      const int low = call.rows / tiles, high_tiles = call.rows % tiles;
      const SumsFn high_fn = choose(low + 1 <= most ? low + 1 : low, panel.vectors), low_fn = choose(low, panel.vectors);
      for (int block = 0; block < w.blocks; ++block) {
        const Ending ending = panel.columns == width ? ending_of(call, block, has_zero) : Ending::separate;
        const FusedFn high_fused = choose_fused(low + 1 <= most ? low + 1 : low, panel.vectors, ending);
        const FusedFn low_fused = choose_fused(low, panel.vectors, ending);
        const uint8_t* b = w.data + panel.offset + static_cast<ptrdiff_t>(block) * w.block_padded * width;
        const int x_block = (panel.group - call.x_first_group) * w.blocks + block;
        // While the rows pass by this block of weights, the next one comes into the cache, a part with each tile.
        const ptrdiff_t bytes = static_cast<ptrdiff_t>(w.block_padded) * width;
        const bool at_end = p + 1 == call.last_panel && block + 1 == w.blocks;
        const uint8_t* ahead = at_end ? call.next : b + bytes;
        const ptrdiff_t ahead_step = ahead == nullptr ? 0 : (bytes / tiles + 63) / 64 * 64;
        for (int tile = 0, row = 0; tile < tiles; ++tile) {
          const int rows = low + (tile < high_tiles);
          // To L1, or to L2 where two such blocks would not fit into L1.
          if (bytes <= 16384)
            for (ptrdiff_t i = 0; i < ahead_step; i += 64) __builtin_prefetch(ahead + i, 0, 3);
          else
            for (ptrdiff_t i = 0; i < ahead_step; i += 64) __builtin_prefetch(ahead + i, 0, 2);
          ahead += ahead_step;
          bool full = false;
          for (int r = 0; r < rows; ++r) {
            const ptrdiff_t place = static_cast<ptrdiff_t>(row + r) * x.blocks + x_block;
            start[r] = w.plus128 ? -128 * x.sum[place] : 0;
            full |= x.wide_count[place] != 0;
          }
          if (full) {
            for (int r = rows - 1; r >= 0; --r) {
              const ptrdiff_t place = static_cast<ptrdiff_t>(row + r) * x.blocks + x_block;
              const int32_t value = start[r];
              for (int c = 0; c < width; ++c) start[r * width + c] = value;
              add_wide(w, b, 4 * width, width, x.wide + place * kMostWide, x.wide_count[place], start + r * width);
            }
          }
          const int8_t* a = x.values + row * x.row_stride + static_cast<ptrdiff_t>(x_block) * x.block_stride;
          if (low_fused != nullptr && !full) {
            const ptrdiff_t place = static_cast<ptrdiff_t>(row) * x.blocks + x_block;
            (tile < high_tiles ? high_fused : low_fused)(
                a, x.row_stride, b, w.block_padded / 4, start,
                {x.scale + place, x.zero + place, x.blocks, w.scale + p * 64, w.bias + p * 64,
                 w.sums + (static_cast<ptrdiff_t>(p) * w.blocks + block) * 64,
                 call.y + row * call.y_stride + panel.column - call.y_column, call.y_stride});
            row += rows;
            continue;
          }
          (tile < high_tiles ? high_fn : low_fn)(a, x.row_stride, b, w.block_padded / 4, start, full, sums);
          finish<activation>(call, panel, p, block, row, rows, 0, panel.vectors, sums);
          row += rows;
        }
      }
    }
  }

  static void linear(const LinearCall& call) { run_activation<Driver>(call); }
};

}  // namespace
}  // namespace sqb
