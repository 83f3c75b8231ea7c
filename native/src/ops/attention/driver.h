// The loops around an instruction set's int16 tile; formula in ops/attention.h.
//
// One head of one sequence: queries as int16 rows, keys and values packed in panels of up to four vectors,
//     keys    [panel of 64 keys][D / 2][keys of the panel][2]
//     values  [panel of 64 channels][T / 2][channels of the panel][2]
// Then, six queries at a time, scores, softmax and context, all of it in L1.
#pragma once

#include "ops/activation.h"
#include "ops/attention.h"

namespace sqb {
namespace {

constexpr int kQueryRows = 6;

inline F32x16 load_at(const float* x, int i, int n) { return n - i >= 16 ? load(x + i) : load_first(x + i, n - i); }

inline float largest_abs(const float* x, int n) {
  F32x16 top = set1(0.0f);
  for (int i = 0; i < n; i += 16) top = max(abs(load_at(x, i, n)), top);
  return largest(top);
}

// Of a row: what makes integers up to `level` of its values, and what makes values of them again. Both are zero where the
// row is.
struct RowScale {
  float inverse, scale;
};
inline RowScale row_scale_of(const float* x, int n, float level) {
  const float top = largest_abs(x, n);
  return top > 1e-30f ? RowScale{level / top, top / level} : RowScale{0.0f, 0.0f};
}

// The largest integer of queries and keys whose products' sums over a head fit in int32.
inline float level_of(int head_size) { return std::fmin(std::floor(std::sqrt(2147483647.0 / head_size)), 32767.0); }

// Of all tokens' values together.
inline RowScale value_scale_of(const AttentionCall& call) {
  F32x16 top16 = set1(0.0f);
  for (int t = 0; t < call.tokens; ++t)
    for (int i = 0; i < call.head_size; i += 16) top16 = max(abs(load_at(call.v + t * call.stride, i, call.head_size)), top16);
  const float top = largest(top16);
  return top > 1e-30f ? RowScale{32767.0f / top, top / 32767.0f} : RowScale{0.0f, 0.0f};
}

// R rows of scores become e, and `factor` what makes 32767 times probabilities of them. Several rows at a time, since one
// row's maximum and sum wait for one another.
template <int R>
inline void exponentials(float* scores, ptrdiff_t stride, int tokens, float (&factor)[R]) {
  const int whole = tokens / 16 * 16, tail = tokens - whole;
  F32x16 top[R], total[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    top[r] = set1(-3.0e38f);
    total[r] = set1(0.0f);
  }
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) top[r] = max(load(scores + r * stride + i), top[r]);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if (tail) top[r] = max(fill_beyond(load(scores + r * stride + whole), tail, -3.0e38f), top[r]);
    top[r] = set1(largest(top[r]));
  }
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const F32x16 e = exp2_inside(max(load(scores + r * stride + i) - top[r], set1(-125.0f)));
      total[r] = total[r] + e;
      store(scores + r * stride + i, e);
    }
  if (tail)
    for (int r = 0; r < R; ++r) {
      const F32x16 e = fill_beyond(exp2_inside(max(load(scores + r * stride + whole) - top[r], set1(-125.0f))), tail, 0.0f);
      total[r] = total[r] + e;
      store(scores + r * stride + whole, e);
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) factor[r] = 32767.0f / sum(total[r]);
}

// Rows of scores become e; write(r, factor) takes row r from there.
template <class Write>
inline void softmax(float* scores, ptrdiff_t stride, int rows, int tokens, Write&& write) {
  int r = 0;
  for (; r + 3 <= rows; r += 3) {
    float factor[3];
    exponentials(scores + r * stride, stride, tokens, factor);
    for (int i = 0; i < 3; ++i) write(r + i, factor[i]);
  }
  for (; r < rows; ++r) {
    float factor[1];
    exponentials(scores + r * stride, stride, tokens, factor);
    write(r, factor[0]);
  }
}

// Tile::sums16<rows, vectors>(a, a_stride, b, steps, sums): sums[r * vectors * 16 + c] = sum over `steps` pairs of a[r] and b.
template <class Tile>
struct AttentionDriver {
  using SumsFn = void (*)(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* sums);

  template <int vectors>
  static SumsFn choose(int rows) {
    switch (rows) {
      case 1: return Tile::template sums16<1, vectors>;
      case 2: return Tile::template sums16<2, vectors>;
      case 3: return Tile::template sums16<3, vectors>;
      case 4: return Tile::template sums16<4, vectors>;
      case 5: return Tile::template sums16<5, vectors>;
      default: return Tile::template sums16<6, vectors>;
    }
  }
  // What follows the sums of a tile: times `scale` of the row (one for all, or one each) and of the column (or none).
  template <int R, int V>
  static void fused(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale, int row_step,
                    const float* column_scale, float* y, ptrdiff_t y_stride) {
    typename Tile::Sums c[R][V];
    Tile::template accumulate<R, V>(a, a_stride, b, steps, c);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const F32x16 scale = set1(row_scale[r * row_step]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const F32x16 factor = column_scale ? scale * load(column_scale + 16 * v) : scale;
        store(y + r * y_stride + 16 * v, F32x16{Tile::to_float(c[r][v])} * factor);
      }
    }
  }

  // Sums of a tile, scaled: y[r][c], for columns up to `valid`.
  template <int V>
  static void scaled(int rows, const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale,
                     int row_step, const float* column_scale, float* y, ptrdiff_t y_stride, int valid, int32_t* sums) {
    if constexpr (Tile::kFused) {
      if (valid >= 16 * V) {
        switch (rows) {
#define SQB_ROWS(n) \
  case n: return fused<n, V>(a, a_stride, b, steps, row_scale, row_step, column_scale, y, y_stride);
          SQB_ROWS(1)
          SQB_ROWS(2)
          SQB_ROWS(3)
          SQB_ROWS(4)
          SQB_ROWS(5)
          default: SQB_ROWS(6)
#undef SQB_ROWS
        }
      }
    }
    choose<V>(rows)(a, a_stride, b, steps, sums);
    for (int r = 0; r < rows; ++r) {
      const F32x16 scale = set1(row_scale[r * row_step]);
      for (int v = 0; v < V && 16 * v < valid; ++v) {
        const F32x16 factor = column_scale ? scale * load(column_scale + 16 * v) : scale;
        const F32x16 value = load_int32(sums + (r * V + v) * 16) * factor;
        if (valid - 16 * v >= 16)
          store(y + r * y_stride + 16 * v, value);
        else
          store_first(y + r * y_stride + 16 * v, value, valid - 16 * v);
      }
    }
  }
  using ScaledFn = void (*)(int rows, const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale,
                            int row_step, const float* column_scale, float* y, ptrdiff_t y_stride, int valid, int32_t* sums);
  static ScaledFn choose_scaled(int vectors) {
    return vectors == 4 ? scaled<4> : vectors == 3 ? scaled<3> : vectors == 2 ? scaled<2> : scaled<1>;
  }

  // rint(x * inverse) for n values; up to the next multiple of 16, zeros.
  static void to_int16(const float* x, int n, float inverse, int16_t* out) {
    for (int i = 0; i < n; i += 16) store_int16(out + i, load_at(x, i, n) * set1(inverse));
  }

  static void run(const AttentionCall& call) {
    const int tokens = call.tokens, size = call.head_size;
    const int padded_size = (size + 15) / 16 * 16, padded_tokens = (tokens + 15) / 16 * 16;
    const int token_pairs = (tokens + 1) / 2, size_pairs = (size + 1) / 2, padded_pairs = (size_pairs + 15) / 16 * 16;
    uint8_t* at = call.scratch;
    const auto take = [&at](size_t bytes) {
      uint8_t* start = at;
      at += (bytes + 63) / 64 * 64;
      return start;
    };
    auto* queries = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * tokens * padded_size));
    auto* keys = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * padded_tokens * 2 * padded_pairs));
    auto* sixteen = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * 16 * 2 * padded_pairs));
    auto* values = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * 2 * token_pairs * padded_size));
    auto* query_scale = reinterpret_cast<float*>(take(sizeof(float) * padded_tokens));
    auto* key_scale = reinterpret_cast<float*>(take(sizeof(float) * padded_tokens));
    auto* scores = reinterpret_cast<float*>(take(sizeof(float) * kQueryRows * padded_tokens));
    auto* probabilities = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * kQueryRows * (padded_tokens + 16)));
    auto* sums = reinterpret_cast<int32_t*>(take(sizeof(int32_t) * kQueryRows * 64));

    const float level = level_of(size);
    const float root = kLog2E / std::sqrt(static_cast<float>(size));
    for (int t = 0; t < tokens; ++t) {
      const RowScale row = row_scale_of(call.q + t * call.stride, size, level);
      query_scale[t] = row.scale * root;
      to_int16(call.q + t * call.stride, size, row.inverse, queries + static_cast<ptrdiff_t>(t) * padded_size);
    }
    std::memset(sixteen, 0, sizeof(int16_t) * 32 * padded_pairs);
    for (int first = 0; first < padded_tokens; first += 16) {
      for (int t = first; t < first + 16; ++t) {
        int16_t* row = sixteen + (t - first) * padded_pairs * 2;
        const RowScale scale = t < tokens ? row_scale_of(call.k + t * call.stride, size, level) : RowScale{0.0f, 0.0f};
        key_scale[t] = scale.scale;
        if (scale.scale == 0.0f)
          std::memset(row, 0, sizeof(int16_t) * padded_size);
        else
          to_int16(call.k + t * call.stride, size, scale.inverse, row);
      }
      const int panel = first / 64 * 64, width = padded_tokens - panel < 64 ? padded_tokens - panel : 64;
      int16_t* target = keys + static_cast<ptrdiff_t>(panel) * 2 * padded_pairs + 2 * (first - panel);
      for (int pair = 0; pair < padded_pairs; pair += 16)
        Tile::transpose_pairs(sixteen + 2 * pair, padded_pairs * 2, target + static_cast<ptrdiff_t>(pair) * width * 2, width * 2);
    }
    const RowScale value = value_scale_of(call);
    const F32x16 value_inverse = set1(value.inverse);
    for (int pair = 0; pair < token_pairs; ++pair) {
      const float* even = call.v + 2 * pair * call.stride;
      for (int c = 0; c < padded_size; c += 16) {
        const int panel = c / 64 * 64, width = padded_size - panel < 64 ? padded_size - panel : 64;
        const F32x16 odd = 2 * pair + 1 < tokens ? load_at(even + call.stride, c, size) : set1(0.0f);
        store_pairs(values + static_cast<ptrdiff_t>(panel) * 2 * token_pairs + static_cast<ptrdiff_t>(pair) * width * 2 +
                        2 * (c - panel),
                    load_at(even, c, size) * value_inverse, odd * value_inverse);
      }
    }

    const int tiles = (tokens + kQueryRows - 1) / kQueryRows, low = tokens / tiles, high_tiles = tokens % tiles;
    const float context_scale = value.scale / 32767.0f;
    for (int tile = 0, first = 0; tile < tiles; ++tile) {
      const int rows = low + (tile < high_tiles);
      for (int panel = 0; panel < padded_tokens; panel += 64) {
        const int width = padded_tokens - panel < 64 ? padded_tokens - panel : 64;
        choose_scaled(width / 16)(rows, queries + static_cast<ptrdiff_t>(first) * padded_size, padded_size,
                                  keys + static_cast<ptrdiff_t>(panel) * 2 * padded_pairs, size_pairs, query_scale + first, 1,
                                  key_scale + panel, scores + panel, padded_tokens, width, sums);
      }
      softmax(scores, padded_tokens, rows, tokens, [&](int r, float factor) {
        for (int i = 0; i < tokens; i += 16)
          store_int16(probabilities + r * (padded_tokens + 16) + i, load(scores + r * padded_tokens + i) * set1(factor));
      });
      for (int panel = 0; panel < padded_size; panel += 64) {
        const int width = padded_size - panel < 64 ? padded_size - panel : 64;
        choose_scaled(width / 16)(rows, probabilities, padded_tokens + 16,
                                  values + static_cast<ptrdiff_t>(panel) * 2 * token_pairs, token_pairs, &context_scale, 0,
                                  nullptr, call.y + first * call.y_stride + panel, call.y_stride, size - panel, sums);
      }
      first += rows;
    }
  }
};

}  // namespace
}  // namespace sqb
