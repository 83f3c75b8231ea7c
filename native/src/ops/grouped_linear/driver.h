// The loops around an instruction set's tile: panels, blocks, rows, and what follows the sums.
//
// A panel's block (12 KB for 64 outputs of 192 channels) stays in L1 while all rows pass by, in tiles of at most
// Tile::rows(vectors) rows, equal in height within one, so that none is too low to hide the latency of its sums.
#pragma once

#include "ops/activation.h"
#include "ops/grouped_linear.h"

namespace sqb {
namespace {

constexpr int kMostTileRows = 12;

// Inline assembly's letter for a vector register.
#if defined(__x86_64__)
#define SQB_VECTOR_REGISTER "v"
#elif defined(__aarch64__)
#define SQB_VECTOR_REGISTER "w"
#else
#define SQB_VECTOR_REGISTER "r"
#endif

// What follows the sums of a tile, where it is fused with them (Tile::kFused). Only what the model's layers need.
enum class Ending {
  plain,   // one block, no activation
  gelu,    // one block
  zero,    // one block, with a zero point, no activation
  first,   // of several blocks: start y
  middle,  // add to y
  last,    // add to y, scale, add the bias
  separate
};

struct Following {
  const float* x_scale;  // of the tile's first row; x_step to the next
  const int32_t* zero;
  ptrdiff_t x_step;
  const float* w_scale;  // of the panel, 64 each
  const float* bias;
  const float* w_sum;
  float* y;
  ptrdiff_t y_stride;
};

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
      SQB_ROWS(1)
      SQB_ROWS(2)
      SQB_ROWS(3)
      SQB_ROWS(4)
      SQB_ROWS(5)
      SQB_ROWS(6)
      SQB_ROWS(7)
      SQB_ROWS(8)
      SQB_ROWS(9)
      SQB_ROWS(10)
      SQB_ROWS(11)
      SQB_ROWS(12)
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
    const float* x_scale_at = then.x_scale;
    float* y = then.y;
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r) {
      const F32x16 x_scale = set1(*x_scale_at);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        F32x16 t{Tile::to_float(c[r][v])};
        // fma(0, w_sum, t) is t: the zero point may be left out where there is none.
        if constexpr (ending == Ending::zero)
          t = fma(set1(static_cast<float>(then.zero[r * then.x_step])), load(then.w_sum + 16 * v), t);
        if constexpr (ending == Ending::middle || ending == Ending::last)
          t = fma(t, x_scale, load(y + 16 * v));
        else
          t = t * x_scale;
        if constexpr (ending != Ending::first && ending != Ending::middle)
          t = fma(t, load(then.w_scale + 16 * v), load(then.bias + 16 * v));
        if constexpr (ending == Ending::gelu) t = gelu(t);
        store(y + 16 * v, t);
      }
      x_scale_at += then.x_step;
      y += then.y_stride;
    }
  }

  template <int vectors, Ending ending>
  static FusedFn choose_fused(int rows) {
    if constexpr (Tile::kFused) {
      switch (rows) {
#define SQB_ROWS(n) \
  case n:           \
    if constexpr (n <= Tile::rows(vectors)) return fused<n, vectors, ending>;
        SQB_ROWS(1)
        SQB_ROWS(2)
        SQB_ROWS(3)
        SQB_ROWS(4)
        SQB_ROWS(5)
        SQB_ROWS(6)
        SQB_ROWS(7)
        SQB_ROWS(8)
        SQB_ROWS(9)
        SQB_ROWS(10)
        SQB_ROWS(11)
        SQB_ROWS(12)
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

  static Ending ending_of(const LinearCall& call, int block, bool has_zero) {
    const int blocks = call.weights->blocks;
    if (blocks > 1) {
      if (has_zero || call.activation != Activation::none) return Ending::separate;
      return block == 0 ? Ending::first : block == blocks - 1 ? Ending::last : Ending::middle;
    }
    if (has_zero) return call.activation == Activation::none ? Ending::zero : Ending::separate;
    return call.activation == Activation::none ? Ending::plain : call.activation == Activation::gelu ? Ending::gelu : Ending::separate;
  }

  // What wide entries add to the sums of one row; see ops/quantize.h.
  static void add_wide(const LinearWeights& w, const uint8_t* b, int width, const Wide* wide, int count, int32_t* start) {
    const uint32_t minus = w.plus128 ? 128 : 0;
    for (int i = 0; i < count; ++i) {
      const uint8_t* quad = b + static_cast<ptrdiff_t>(wide[i].place / 4) * width * 4;
      const int shift = 24 - 8 * (wide[i].place % 4);
      const int32_t excess = wide[i].excess;
      for (int c = 0; c < width; ++c) {
        uint32_t four;
        std::memcpy(&four, quad + 4 * c, 4);
        // The byte, its sign spread: shifted to the top and back.
        const int32_t byte = minus ? static_cast<int32_t>((four << shift) >> 24) - 128
                                   : static_cast<int32_t>(four << shift) >> 24;
        start[c] += excess * byte;
      }
    }
  }

  template <Activation activation>
  static void finish(const LinearCall& call, const Panel& panel, int p, int block, int row, int rows, const int32_t* sums) {
    const LinearWeights& w = *call.weights;
    const bool first = block == 0, last = block == w.blocks - 1;
    const int width = panel.vectors * 16;
    const float* w_sum = w.sums + (static_cast<ptrdiff_t>(p) * w.blocks + block) * 64;
    for (int r = 0; r < rows; ++r) {
      const ptrdiff_t place = static_cast<ptrdiff_t>(row + r) * call.x->blocks + (panel.group - call.x_first_group) * w.blocks + block;
      const F32x16 x_scale = set1(call.x->scale[place]);
      const F32x16 zero = set1(static_cast<float>(call.x->zero[place]));
      float* y = call.y + (row + r) * call.y_stride + panel.column - call.y_column;
      for (int v = 0; v < panel.vectors; ++v) {
        const int valid = panel.columns - 16 * v;
        F32x16 t = fma(zero, load(w_sum + 16 * v), load_int32(sums + r * width + 16 * v));
        if (first)
          t = t * x_scale;
        else
          t = fma(t, x_scale, valid >= 16 ? load(y + 16 * v) : load_first(y + 16 * v, valid));
        if (last) t = activate<activation>(fma(t, load(w.scale + p * 64 + 16 * v), load(w.bias + p * 64 + 16 * v)));
        if (valid >= 16)
          store(y + 16 * v, t);
        else
          store_first(y + 16 * v, t, valid);
      }
    }
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
              add_wide(w, b, width, x.wide + place * kMostWide, x.wide_count[place], start + r * width);
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
          finish<activation>(call, panel, p, block, row, rows, sums);
          row += rows;
        }
      }
    }
  }

  static void linear(const LinearCall& call) {
    if (call.rows <= 0) return;
    switch (call.activation) {
      case Activation::none: return run<Activation::none>(call);
      case Activation::gelu: return run<Activation::gelu>(call);
      case Activation::gelu_new: return run<Activation::gelu_new>(call);
      case Activation::relu: return run<Activation::relu>(call);
      case Activation::silu: return run<Activation::silu>(call);
      case Activation::tanh: return run<Activation::tanh>(call);
    }
  }
};

}  // namespace
}  // namespace sqb
