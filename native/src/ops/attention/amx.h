// Attention on AMX's int8 tiles; formula in ops/attention.h.
//
// A product of int16 is made of four of bytes: with x = 256 xh + xl, xh signed and xl unsigned,
//     sum x y = 65536 sum xh yh + 256 sum (xh yl + xl yh) + sum xl yl
// whose three sums are three tiles. Sums wrap around 2^32, and what they add up to fits: so it is exact, and the same as
// in one piece. Sixteen queries at a time; queries, keys and values as bytes, high and low apart,
//     queries  [token][deep]                                     deep: head size in whole 64s
//     keys     [sixteen keys][deep / 4][key][4]
//     values   [sixteen channels][tokens / 4][channel][4]        tokens in whole 64s
#pragma once

#include "ops/attention/avx512vnni.h"
#include "ops/attention/driver.h"
#include "simd/amx.h"

namespace sqb {
namespace {

struct AmxAttention {
  static constexpr int kRows = kTileRows;
  static constexpr int kTile = kTileRows * kTileBytes;

  static __m512i to_int32(F32x16 x) { return _mm512_cvtps_epi32(x.v); }
  // Bytes of 64 values, rounded and held within int16, in the order that packing leaves: value 16 s + 4 l + i goes to place
  // 16 l + 4 s + i. Queries and keys share it, and values follow that of probabilities.
  static void store_bytes(uint8_t* high, uint8_t* low, F32x16 a, F32x16 b, F32x16 c, F32x16 d) {
    const __m512i ab = _mm512_packs_epi32(to_int32(a), to_int32(b)), cd = _mm512_packs_epi32(to_int32(c), to_int32(d));
    const __m512i byte = _mm512_set1_epi16(255);
    _mm512_store_si512(high, _mm512_packs_epi16(_mm512_srai_epi16(ab, 8), _mm512_srai_epi16(cd, 8)));
    _mm512_store_si512(low, _mm512_packus_epi16(_mm512_and_si512(ab, byte), _mm512_and_si512(cd, byte)));
  }
  // rint(x * inverse) for n values; zeros up to a multiple of 64.
  static void to_bytes(const float* x, int n, float inverse, uint8_t* high, uint8_t* low) {
    const auto value = [&](int i) { return n - i >= 16 ? load(x + i) * set1(inverse) : n > i ? load_first(x + i, n - i) * set1(inverse) : set1(0.0f); };
    for (int i = 0; i < n; i += 64) store_bytes(high + i, low + i, value(i), value(i + 16), value(i + 32), value(i + 48));
  }

  // Three tiles of sums of sixteen rows by sixteen columns, over `steps` times 64.
  static void products(const uint8_t* a_high, const uint8_t* a_low, ptrdiff_t a_stride, const uint8_t* b_high,
                       const uint8_t* b_low, int steps, int32_t* sums) {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    for (int k = 0; k < steps; ++k) {
      load_tile<4>(a_high + k * kTileBytes, a_stride);
      load_tile<6>(b_high + k * kTile, kTileBytes);
      dot_tiles<true, true, 0, 4, 6>();
      load_tile<7>(b_low + k * kTile, kTileBytes);
      dot_tiles<true, false, 1, 4, 7>();
      load_tile<5>(a_low + k * kTileBytes, a_stride);
      dot_tiles<false, true, 1, 5, 6>();
      dot_tiles<false, false, 2, 5, 7>();
    }
    store_tile<0>(sums, kTileBytes);
    store_tile<1>(sums + kTile / 4, kTileBytes);
    store_tile<2>(sums + kTile / 2, kTileBytes);
  }
  static F32x16 sum_of(const int32_t* sums, int row) {
    const int32_t* at = sums + row * 16;
    const __m512i high = _mm512_slli_epi32(_mm512_load_si512(at), 16), middle = _mm512_slli_epi32(_mm512_load_si512(at + kTile / 4), 8);
    return {_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_add_epi32(high, middle), _mm512_load_si512(at + kTile / 2)))};
  }

  // Bytes of four tokens side by side, those of `shift` and above.
  static __m512i four(const __m512i (&x)[4], int shift) {
    const __m512i byte = _mm512_set1_epi32(255);
    const auto of = [&](int i) { return _mm512_and_si512(_mm512_srai_epi32(x[i], shift), byte); };
    const __m512i low = _mm512_or_si512(of(0), _mm512_slli_epi32(of(1), 8));
    return _mm512_or_si512(low, _mm512_or_si512(_mm512_slli_epi32(of(2), 16), _mm512_slli_epi32(of(3), 24)));
  }

  static void run(const AttentionCall& call) {
    const int tokens = call.tokens, size = call.head_size;
    const int deep = (size + 63) / 64 * 64, channels = (size + 15) / 16 * 16;
    const int keys = (tokens + 15) / 16 * 16, long_tokens = (tokens + 63) / 64 * 64;
    uint8_t* at = call.scratch;
    const auto take = [&at](ptrdiff_t bytes) {
      uint8_t* start = at;
      at += (bytes + 63) / 64 * 64;
      return start;
    };
    uint8_t* q_high = take(keys * deep);
    uint8_t* q_low = take(keys * deep);
    uint8_t* k_high = take(keys * deep);
    uint8_t* k_low = take(keys * deep);
    uint8_t* v_high = take(long_tokens * channels);
    uint8_t* v_low = take(long_tokens * channels);
    uint8_t* sixteen_high = take(16 * deep);
    uint8_t* sixteen_low = take(16 * deep);
    auto* query_scale = reinterpret_cast<float*>(take(4 * keys));
    auto* key_scale = reinterpret_cast<float*>(take(4 * keys));
    auto* scores = reinterpret_cast<float*>(take(4 * kRows * long_tokens));
    uint8_t* probabilities = take(4 * kRows * long_tokens);
    int32_t* sums[2] = {reinterpret_cast<int32_t*>(take(3 * kTile)), reinterpret_cast<int32_t*>(take(3 * kTile))};

    const float level = level_of(size);
    const float root = kLog2E / std::sqrt(static_cast<float>(size));
    for (int t = 0; t < tokens; ++t) {
      const RowScale row = row_scale_of(call.q + t * call.stride, size, level);
      query_scale[t] = row.scale * root;
      to_bytes(call.q + t * call.stride, size, row.inverse, q_high + t * deep, q_low + t * deep);
    }
    for (int first = 0; first < keys; first += 16) {
      for (int t = first; t < first + 16; ++t) {
        // Keys beyond the last are whatever was here; their scores are zero, since what was here may be slow numbers.
        key_scale[t] = 0.0f;
        if (t >= tokens) continue;
        const RowScale row = row_scale_of(call.k + t * call.stride, size, level);
        key_scale[t] = row.scale;
        to_bytes(call.k + t * call.stride, size, row.inverse, sixteen_high + (t - first) * deep,
                 sixteen_low + (t - first) * deep);
      }
      const auto turn = [&](const uint8_t* rows, uint8_t* to) {
        for (int i = 0; i < deep; i += 64)
          Avx512VnniTile16::transpose_pairs(reinterpret_cast<const int16_t*>(rows + i), deep / 2,
                                            reinterpret_cast<int16_t*>(to + i * 16), 32);
      };
      turn(sixteen_high, k_high + first * deep);
      turn(sixteen_low, k_low + first * deep);
    }
    const RowScale value = value_scale_of(call);
    const F32x16 value_inverse = set1(value.inverse);
    for (int c = 0; c < channels; c += 16)
      for (int t = 0; t < long_tokens; t += 4) {
        __m512i x[4];
        for (int i = 0; i < 4; ++i)
          x[i] = t + i < tokens ? to_int32(load_at(call.v + (t + i) * call.stride, c, size) * value_inverse) : _mm512_setzero_si512();
        const int place = t / 64 * 64 + t % 16 * 4 + t % 64 / 16 * 4;  // as store_bytes leaves probabilities
        _mm512_store_si512(v_high + (c * long_tokens + place * 16), four(x, 8));
        _mm512_store_si512(v_low + (c * long_tokens + place * 16), four(x, 0));
      }

    configure_tiles(kTileRows, kTileRows);
    const float context_scale = value.scale / 32767.0f;
    int turns = 0;
    // What follows a tile's sums is done while the next tile's are made.
    const auto scores_of = [&](int first, int rows) {
      const auto scaled = [&](const int32_t* from, int key) {
        const F32x16 column = load(key_scale + key);
        for (int r = 0; r < rows; ++r)
          store(scores + r * long_tokens + key, sum_of(from, r) * (set1(query_scale[first + r]) * column));
      };
      for (int key = 0; key < keys; key += 16, ++turns) {
        products(q_high + first * deep, q_low + first * deep, deep, k_high + key * deep, k_low + key * deep, deep / 64, sums[turns & 1]);
        if (key > 0) scaled(sums[~turns & 1], key - 16);
      }
      scaled(sums[~turns & 1], keys - 16);
    };
    const auto context_of = [&](int first, int rows, const uint8_t* p_high, const uint8_t* p_low) {
      const auto scaled = [&](const int32_t* from, int c) {
        const int left = size - c;
        for (int r = 0; r < rows; ++r) {
          float* y = call.y + (first + r) * call.y_stride + c;
          const F32x16 value = sum_of(from, r) * set1(context_scale);
          if (left >= 16)
            store(y, value);
          else
            store_first(y, value, left);
        }
      };
      for (int c = 0; c < channels; c += 16, ++turns) {
        products(p_high, p_low, long_tokens, v_high + c * long_tokens, v_low + c * long_tokens, long_tokens / 64, sums[turns & 1]);
        if (c > 0) scaled(sums[~turns & 1], c - 16);
      }
      scaled(sums[~turns & 1], channels - 16);
    };
    // The context of some queries waits for the scores of the next: a tile that reads what was just written
    // would wait for it.
    uint8_t* p = probabilities;
    uint8_t* last_p = probabilities + 2 * kRows * long_tokens;
    for (int first = 0; first < tokens; first += kRows) {
      const int rows = tokens - first < kRows ? tokens - first : kRows;
      scores_of(first, rows);
      if (first > 0) context_of(first - kRows, kRows, last_p, last_p + kRows * long_tokens);
      // Values of tokens beyond the last are zero, so any probability will do for them.
      softmax(scores, long_tokens, rows, tokens, [&](int r, float factor) {
        const F32x16 times = set1(factor);
        const float* e = scores + r * long_tokens;
        const auto at = [&](int i) { return i < keys ? load(e + i) * times : set1(0.0f); };
        for (int i = 0; i < tokens; i += 64)
          store_bytes(p + r * long_tokens + i, p + (kRows + r) * long_tokens + i, at(i), at(i + 16), at(i + 32), at(i + 48));
      });
      uint8_t* const other = last_p;
      last_p = p;
      p = other;
    }
    const int last = (tokens - 1) / kRows * kRows;
    context_of(last, tokens - last, last_p, last_p + kRows * long_tokens);
    release_tiles();
  }
};

}  // namespace
}  // namespace sqb
