// Quantisation of activations: fp32 rows -> int8, one scale per token and per block of channels (a lane).
//
// For a block x[0..n) of one row, symmetric form (floor = 0):
//     m      = max |x|,  a = mean |x| (sixteen partial sums),  L = max(16, n / 12) * a
//     if m > L: m = max(max of |x| over |x| <= L, m * 2^-12)          values beyond stay "wide", see below
//     scale  = m / 127,  q = rint(x * (127 / m)),  zero = 0
// Values known to be at least -floor (after GELU: 0.17) use the whole range, with zero represented exactly:
//     m      = max x, L likewise, r = max(m, 0) + floor, inv = 252 / r, below = ceil(floor * inv)
//     scale  = r / 252,  q = rint(x * inv) + below - 127,  zero = 127 - below
// Either way x ~ scale * (q + zero), within scale / 2.
//
// Wide entries. A few channels of a trained encoder may be a hundred times the rest; a scale made for them would leave
// the rest two or three levels. So q beyond -127..127 is kept: `values` holds it clamped, and the list holds place and
// excess, which the product adds exactly in int32. By the choice of L there are at most min(12, n / 16) of them.
// Error of the others: at most L / 254 each.
//
// `sum` is the sum of the clamped q, with which kernels that store weights with 128 added correct their sums.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sqb {

constexpr int kMostWide = 12;
constexpr int kBlockMultiple = 64;

struct Wide {
  int32_t place;   // channel within the block
  int32_t excess;  // q - clamp(q)
};

// Rows of quantised activations. Block b of row r starts at values + r * row_stride + b * block_stride; the bytes from
// block_size to block_stride, a multiple of kBlockMultiple, are zero.
struct Quantized {
  int8_t* values = nullptr;
  float* scale = nullptr;         // [rows][blocks]
  int32_t* zero = nullptr;        // [rows][blocks]
  int32_t* sum = nullptr;         // [rows][blocks]
  int32_t* wide_count = nullptr;  // [rows][blocks]
  Wide* wide = nullptr;           // [rows][blocks][kMostWide]
  int blocks = 0;
  int block_size = 0;
  int block_stride = 0;
  ptrdiff_t row_stride = 0;

  Quantized from_row(ptrdiff_t row) const {
    Quantized q = *this;
    q.values += row * row_stride;
    q.scale += row * blocks;
    q.zero += row * blocks;
    q.sum += row * blocks;
    q.wide_count += row * blocks;
    q.wide += row * blocks * kMostWide;
    return q;
  }
};

// Bytes from one row to the next that hold `bytes`: an odd number of cache lines, so that rows that pass by together do
// not crowd a few sets of the cache.
inline int odd_lines(int bytes) { return ((bytes + 63) / 64 | 1) * 64; }

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// x: [rows][x_stride], blocks * block_size channels used. floor: 0, or how far below zero values can lie.
using QuantizeFn = void(const float* x, ptrdiff_t x_stride, int rows, float floor, const Quantized& out);

}  // namespace sqb
