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

// Of each channel of keys or values: what makes integers up to 127 of it, and what makes values of them again. Both are zero
// where the channel is, and up to a multiple of 64.
inline void channel_scales_of(const float* x, const AttentionCall& call, float* inverse, float* scale) {
  const int size = call.head_size;
  const auto finish = [&](int i, F32x16 top16) {
    float top[16];
    store(top, top16);
    for (int j = 0; j < 16; ++j) {
      const bool empty = !(top[j] > kNoAttentionScale);
      inverse[i + j] = empty ? 0.0f : 127.0f / top[j];
      scale[i + j] = empty ? 0.0f : top[j] / 127.0f;
    }
  };
  int i = 0;
  for (; i + 64 <= size; i += 64) {  // four at a time, since each maximum waits for the one before
    F32x16 top[4] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
    for (int t = 0; t < call.tokens; ++t)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) top[j] = max(abs(load(x + t * call.stride + i + 16 * j)), top[j]);
    for (int j = 0; j < 4; ++j) finish(i + 16 * j, top[j]);
  }
  for (; i < size; i += 16) {
    F32x16 top = set1(0.0f);
    for (int t = 0; t < call.tokens; ++t) top = max(abs(load_at(x + t * call.stride, i, size)), top);
    finish(i, top);
  }
  for (; i < (size + 63) / 64 * 64; ++i) inverse[i] = scale[i] = 0.0f;
}

// The largest of each of R rows of scores.
template <int R>
inline void largest_of_rows(const float* sums, ptrdiff_t stride, int tokens, F32x16 (&top)[R]) {
  const int whole = tokens / 16 * 16, tail = tokens - whole;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) top[r] = set1(-3.0e38f);
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) top[r] = max(load(sums + r * stride + i), top[r]);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if (tail) top[r] = max(fill_beyond(load(sums + r * stride + whole), tail, -3.0e38f), top[r]);
    top[r] = set1(largest(top[r]));
  }
}

inline F32x16 exponential(F32x16 sum, F32x16 top, F32x16 scale, F32x16 bits) {
  return exp2_inside(max(fma(sum - top, scale, bits), set1(-125.0f)));
}

// R rows of sums become P, and `factor` what divides by the sum of e. Several rows at a time, since one row's maximum and
// sum wait for one another.
template <int R>
inline void softmax_rows(const float* sums, ptrdiff_t stride, int tokens, const float* scale, float bits, int16_t* p,
                         ptrdiff_t p_stride, float* factor) {
  const int whole = tokens / 16 * 16, tail = tokens - whole;
  F32x16 top[R], total[R];
  largest_of_rows<R>(sums, stride, tokens, top);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) total[r] = set1(0.0f);
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const F32x16 e = exponential(load(sums + r * stride + i), top[r], set1(scale[r]), set1(bits));
      total[r] = total[r] + e;
      store_int16(p + r * p_stride + i, e);
    }
  if (tail)
    for (int r = 0; r < R; ++r) {
      const F32x16 e = fill_beyond(exponential(load(sums + r * stride + whole), top[r], set1(scale[r]), set1(bits)), tail, 0.0f);
      total[r] = total[r] + e;
      store_int16(p + r * p_stride + whole, e);
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) factor[r] = 1.0f / sum(total[r]);
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
  // What follows the sums of a tile: times the scale of row and column, where there are any.
  template <int R, int V>
  static void fused(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale,
                    const float* column_scale, float* y, ptrdiff_t y_stride) {
    typename Tile::Sums c[R][V];
    Tile::template accumulate<R, V>(a, a_stride, b, steps, c);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const F32x16 sum{Tile::to_float(c[r][v])};
        store(y + r * y_stride + 16 * v, row_scale ? sum * (set1(row_scale[r]) * load(column_scale + 16 * v)) : sum);
      }
    }
  }

  // Sums of a tile, scaled: y[r][c], for columns up to `valid`.
  template <int V>
  static void scaled(int rows, const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale,
                     const float* column_scale, float* y, ptrdiff_t y_stride, int valid, int32_t* sums) {
    if constexpr (Tile::kFused) {
      if (valid >= 16 * V) {
        switch (rows) {
#define SQB_ROWS(n) \
  case n: return fused<n, V>(a, a_stride, b, steps, row_scale, column_scale, y, y_stride);
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
      for (int v = 0; v < V && 16 * v < valid; ++v) {
        F32x16 value = load_int32(sums + (r * V + v) * 16);
        if (row_scale) value = value * (set1(row_scale[r]) * load(column_scale + 16 * v));
        if (valid - 16 * v >= 16)
          store(y + r * y_stride + 16 * v, value);
        else
          store_first(y + r * y_stride + 16 * v, value, valid - 16 * v);
      }
    }
  }
  using ScaledFn = void (*)(int rows, const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, const float* row_scale,
                            const float* column_scale, float* y, ptrdiff_t y_stride, int valid, int32_t* sums);
  static ScaledFn choose_scaled(int vectors) {
    return vectors == 4 ? scaled<4> : vectors == 3 ? scaled<3> : vectors == 2 ? scaled<2> : scaled<1>;
  }

  static void run(const AttentionCall& call) {
    const int tokens = call.tokens, size = call.head_size;
    const int padded_size = (size + 15) / 16 * 16, long_size = (size + 63) / 64 * 64, padded_tokens = (tokens + 15) / 16 * 16;
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
    auto* inverse = reinterpret_cast<float*>(take(sizeof(float) * long_size));
    auto* scale = reinterpret_cast<float*>(take(sizeof(float) * long_size));
    auto* scores = reinterpret_cast<float*>(take(sizeof(float) * kQueryRows * padded_tokens));
    auto* probabilities = reinterpret_cast<int16_t*>(take(sizeof(int16_t) * kQueryRows * (padded_tokens + 16)));
    auto* sums = reinterpret_cast<int32_t*>(take(sizeof(int32_t) * kQueryRows * 64));

    channel_scales_of(call.k, call, inverse, scale);
    const float level = query_level(size), root = kLog2E / std::sqrt(static_cast<float>(size));
    for (int t = 0; t < tokens; ++t) {
      const float* q = call.q + t * call.stride;
      int16_t* row = queries + static_cast<ptrdiff_t>(t) * padded_size;
      F32x16 top16 = set1(0.0f);
      for (int i = 0; i < size; i += 16) top16 = max(abs(load_at(q, i, size) * load(scale + i)), top16);
      const float top = largest(top16);
      const bool empty = !(top > kNoAttentionScale);
      query_scale[t] = empty ? 0.0f : top / level * root;
      const F32x16 query_inverse = set1(empty ? 0.0f : level / top);
      for (int i = 0; i < size; i += 16) store_int16(row + i, load_at(q, i, size) * load(scale + i) * query_inverse);
    }
    std::memset(sixteen, 0, sizeof(int16_t) * 32 * padded_pairs);
    for (int first = 0; first < padded_tokens; first += 16) {
      for (int t = first; t < first + 16; ++t) {
        int16_t* row = sixteen + (t - first) * padded_pairs * 2;
        if (t < tokens)
          for (int i = 0; i < size; i += 16) store_int16(row + i, load_at(call.k + t * call.stride, i, size) * load(inverse + i));
        else
          std::memset(row, 0, sizeof(int16_t) * padded_size);
      }
      const int panel = first / 64 * 64, width = padded_tokens - panel < 64 ? padded_tokens - panel : 64;
      int16_t* target = keys + static_cast<ptrdiff_t>(panel) * 2 * padded_pairs + 2 * (first - panel);
      for (int pair = 0; pair < padded_pairs; pair += 16)
        Tile::transpose_pairs(sixteen + 2 * pair, padded_pairs * 2, target + static_cast<ptrdiff_t>(pair) * width * 2, width * 2);
    }
    channel_scales_of(call.v, call, inverse, scale);
    for (int pair = 0; pair < token_pairs; ++pair) {
      const float* even = call.v + 2 * pair * call.stride;
      for (int c = 0; c < padded_size; c += 16) {
        const int panel = c / 64 * 64, width = padded_size - panel < 64 ? padded_size - panel : 64;
        const F32x16 odd = 2 * pair + 1 < tokens ? load_at(even + call.stride, c, size) : set1(0.0f);
        store_pairs(values + static_cast<ptrdiff_t>(panel) * 2 * token_pairs + static_cast<ptrdiff_t>(pair) * width * 2 +
                        2 * (c - panel),
                    load_at(even, c, size) * load(inverse + c), odd * load(inverse + c));
      }
    }

    const int tiles = (tokens + kQueryRows - 1) / kQueryRows, low = tokens / tiles, high_tiles = tokens % tiles;
    const float bits = static_cast<float>(probability_bits(tokens));
    const ptrdiff_t p_stride = padded_tokens + 16;
    for (int tile = 0, first = 0; tile < tiles; ++tile) {
      const int rows = low + (tile < high_tiles);
      for (int panel = 0; panel < padded_tokens; panel += 64) {
        const int width = padded_tokens - panel < 64 ? padded_tokens - panel : 64;
        choose_scaled(width / 16)(rows, queries + static_cast<ptrdiff_t>(first) * padded_size, padded_size,
                                  keys + static_cast<ptrdiff_t>(panel) * 2 * padded_pairs, size_pairs, nullptr, nullptr,
                                  scores + panel, padded_tokens, width, sums);
      }
      float factor[kQueryRows];
      int r = 0;
      for (; r + 3 <= rows; r += 3)
        softmax_rows<3>(scores + r * padded_tokens, padded_tokens, tokens, query_scale + first + r, bits,
                        probabilities + r * p_stride, p_stride, factor + r);
      for (; r < rows; ++r)
        softmax_rows<1>(scores + r * padded_tokens, padded_tokens, tokens, query_scale + first + r, bits,
                        probabilities + r * p_stride, p_stride, factor + r);
      for (int panel = 0; panel < padded_size; panel += 64) {
        const int width = padded_size - panel < 64 ? padded_size - panel : 64;
        choose_scaled(width / 16)(rows, probabilities, p_stride, values + static_cast<ptrdiff_t>(panel) * 2 * token_pairs,
                                  token_pairs, factor, scale + panel, call.y + first * call.y_stride + panel,
                                  call.y_stride, size - panel, sums);
      }
      first += rows;
    }
  }
};

}  // namespace
}  // namespace sqb
