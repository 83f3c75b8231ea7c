// What comes before and after the sums of a tile where they go through memory: wide entries, scales, bias, activation.
#pragma once

#include <cstring>

#include "ops/activation.h"
#include "ops/grouped_linear.h"

namespace sqb {
namespace {

constexpr int kMostTileRows = 12;

// SQB_ROWS(n) for each height of a tile: the cases of a switch.
#define SQB_EACH_ROWS(SQB_ROWS) \
  SQB_ROWS(1) SQB_ROWS(2) SQB_ROWS(3) SQB_ROWS(4) SQB_ROWS(5) SQB_ROWS(6) SQB_ROWS(7) SQB_ROWS(8) SQB_ROWS(9) SQB_ROWS(10) \
  SQB_ROWS(11) SQB_ROWS(12)

// What follows the sums of a tile of whole vectors. Only what the model's layers need; the rest is `separate`.
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
  const uint8_t* ahead = nullptr;  // what to fetch into L2 meanwhile, `lines` of 64 bytes
  int lines = 0;
};

inline Ending ending_of(const LinearCall& call, int block, bool has_zero) {
  const int blocks = call.weights->blocks;
  if (blocks > 1) {
    if (has_zero || call.activation != Activation::none) return Ending::separate;
    return block == 0 ? Ending::first : block == blocks - 1 ? Ending::last : Ending::middle;
  }
  if (has_zero) return call.activation == Activation::none ? Ending::zero : Ending::separate;
  return call.activation == Activation::none ? Ending::plain : call.activation == Activation::gelu ? Ending::gelu : Ending::separate;
}

// What sixteen output channels, vector v of the panel, bring along; only what the ending reads.
struct Channels {
  F32x16 scale, bias, sum;
};
template <Ending ending>
[[gnu::always_inline]] inline Channels channels_of(const Following& then, int v) {
  Channels c;
  if constexpr (ending != Ending::first && ending != Ending::middle) {
    c.scale = load(then.w_scale + 16 * v);
    c.bias = load(then.bias + 16 * v);
  }
  if constexpr (ending == Ending::zero) c.sum = load(then.w_sum + 16 * v);
  return c;
}

// Sixteen sums of one row on their way to y.
template <Ending ending>
[[gnu::always_inline]] inline void follow(F32x16 t, F32x16 x_scale, const int32_t* zero, const Channels& channels, float* y) {
  // fma(0, w_sum, t) is t: the zero point may be left out where there is none.
  if constexpr (ending == Ending::zero) t = fma(set1_int32(zero), channels.sum, t);
  if constexpr (ending == Ending::middle || ending == Ending::last)
    t = fma(t, x_scale, load(y));
  else
    t = t * x_scale;
  if constexpr (ending != Ending::first && ending != Ending::middle) t = fma(t, channels.scale, channels.bias);
  if constexpr (ending == Ending::gelu) t = gelu(t);
  store(y, t);
}

// Sums of `rows` rows by whole vectors of output channels on their way to y. sums: [rows][vectors * 16].
using FollowFn = void (*)(const int32_t* sums, int rows, const Following& then);
template <Ending ending, int vectors>
inline void follow_rows(const int32_t* sums, int rows, const Following& then) {
  const uint8_t* ahead = then.ahead;
  const uint8_t* const ahead_end = ahead + 64 * static_cast<ptrdiff_t>(then.lines);
  for (int v = 0; v < vectors; ++v) {
    const Channels channels = channels_of<ending>(then, v);
    const float* x_scale = then.x_scale;
    const int32_t* zero = then.zero;
    const ptrdiff_t x_step = then.x_step, y_stride = then.y_stride;
    float* y = then.y + 16 * v;
    for (int r = 0; r < rows; ++r) {
      if (ahead != ahead_end) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += 64;
      }
      follow<ending>(load_int32(sums + (r * vectors + v) * 16), set1(*x_scale), zero, channels, y);
      x_scale += x_step;
      zero += x_step;
      y += y_stride;
    }
  }
}
// Null: separate.
template <int vectors>
inline FollowFn choose_follow(Ending ending) {
  switch (ending) {
    case Ending::plain: return follow_rows<Ending::plain, vectors>;
    case Ending::gelu: return follow_rows<Ending::gelu, vectors>;
    case Ending::zero: return follow_rows<Ending::zero, vectors>;
    case Ending::first: return follow_rows<Ending::first, vectors>;
    case Ending::middle: return follow_rows<Ending::middle, vectors>;
    case Ending::last: return follow_rows<Ending::last, vectors>;
    case Ending::separate: break;
  }
  return nullptr;
}

// What wide entries add to the sums of one row, over `width` output channels of a block b; see ops/quantize.h. quad_step:
// bytes from four channels to the next four.
inline void add_wide(const LinearWeights& w, const uint8_t* b, ptrdiff_t quad_step, int width, const Wide* wide, int count,
                     int32_t* start) {
  const uint32_t minus = w.plus128 ? 128 : 0;
  for (int i = 0; i < count; ++i) {
    const uint8_t* quad = b + wide[i].place / 4 * quad_step;
    const int shift = 24 - 8 * (wide[i].place % 4);
    const int32_t excess = wide[i].excess;
    for (int c = 0; c < width; ++c) {
      uint32_t four;
      std::memcpy(&four, quad + 4 * c, 4);
      // The byte, its sign spread: shifted to the top and back.
      const int32_t byte = minus ? static_cast<int32_t>((four << shift) >> 24) - 128 : static_cast<int32_t>(four << shift) >> 24;
      start[c] += excess * byte;
    }
  }
}

// Rows row .. row + rows of the call, vectors first_vector .. first_vector + vectors of panel p, one block of channels.
// sums: [rows][vectors * 16].
template <Activation activation>
inline void finish(const LinearCall& call, const Panel& panel, int p, int block, int row, int rows, int first_vector,
                   int vectors, const int32_t* sums) {
  const LinearWeights& w = *call.weights;
  const bool first = block == 0, last = block == w.blocks - 1;
  const float* w_sum = w.sums + (static_cast<ptrdiff_t>(p) * w.blocks + block) * 64 + 16 * first_vector;
  const float* w_scale = w.scale + p * 64 + 16 * first_vector;
  const float* bias = w.bias + p * 64 + 16 * first_vector;
  for (int r = 0; r < rows; ++r) {
    const ptrdiff_t place = static_cast<ptrdiff_t>(row + r) * call.x->blocks + (panel.group - call.x_first_group) * w.blocks + block;
    const F32x16 x_scale = set1(call.x->scale[place]);
    const F32x16 zero = set1_int32(call.x->zero + place);
    float* y = call.y + (row + r) * call.y_stride + panel.column - call.y_column + 16 * first_vector;
    for (int v = 0; v < vectors; ++v) {
      const int valid = panel.columns - 16 * (first_vector + v);
      F32x16 t = fma(zero, load(w_sum + 16 * v), load_int32(sums + (r * vectors + v) * 16));
      if (first)
        t = t * x_scale;
      else
        t = fma(t, x_scale, valid >= 16 ? load(y + 16 * v) : load_first(y + 16 * v, valid));
      if (last) t = activate<activation>(fma(t, load(w_scale + 16 * v), load(bias + 16 * v)));
      if (valid >= 16)
        store(y + 16 * v, t);
      else
        store_first(y + 16 * v, t, valid);
    }
  }
}

// The driver's run<activation>, for the activation that the call asks for.
template <class Driver>
inline void run_activation(const LinearCall& call) {
  if (call.rows <= 0) return;
  switch (call.activation) {
    case Activation::none: return Driver::template run<Activation::none>(call);
    case Activation::gelu: return Driver::template run<Activation::gelu>(call);
    case Activation::gelu_new: return Driver::template run<Activation::gelu_new>(call);
    case Activation::relu: return Driver::template run<Activation::relu>(call);
    case Activation::silu: return Driver::template run<Activation::silu>(call);
    case Activation::tanh: return Driver::template run<Activation::tanh>(call);
  }
}

}  // namespace
}  // namespace sqb
