// Attention on AMX's int8 tiles; formula in ops/attention.h.
//
// A product of sixteen bits by eight is made of two of bytes: with x = 256 xh + xl, xh signed and xl unsigned,
//     sum x y = 256 sum xh y + sum xl y
// whose two sums are two tiles. They fit, so it is exact, and the same as in one piece. Sixteen queries at a time;
// queries and probabilities as bytes, high and low apart,
//     queries        [token][deep]                               deep: head size in whole 64s
//     keys           [sixteen keys][deep / 4][key][4]
//     values         [sixteen channels][tokens / 4][channel][4]  tokens in whole 64s
//     probabilities  [64 tokens][high, low][query][64]
// Sums go through memory, and are not read before long: a product's are stored while the next is made, and looked at while
// the one after that is. A load waits for an earlier store whose address differs from its own by whole 4 KB pages. So what
// belongs to every other product lies in the lower halves of pages, and the rest in the upper.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ops/attention/avx512vnni.h"
#include "ops/attention/driver.h"
#include "simd/amx.h"

namespace sqb {
namespace {

struct AmxAttention {
  static constexpr int kRows = kTileRows;
  static constexpr int kTile = kTileRows * kTileBytes;
  static constexpr int kSums = kTile / 4;  // of a tile
  static constexpr int kPage = kAttentionPage, kHalf = kPage / 2;

  static __m512i to_int32(F32x16 x) { return _mm512_cvtps_epi32(x.v); }
  // 64 values, rounded and held within int16, in the order that packing leaves: value 16 s + 4 l + i goes to place
  // 16 l + 4 s + i. Queries and keys share it, and values follow that of probabilities.
  struct Packed {
    __m512i ab, cd;
    Packed(F32x16 a, F32x16 b, F32x16 c, F32x16 d)
        : ab(_mm512_packs_epi32(to_int32(a), to_int32(b))), cd(_mm512_packs_epi32(to_int32(c), to_int32(d))) {}
    __m512i bytes() const { return _mm512_packs_epi16(ab, cd); }
    __m512i high() const { return _mm512_packs_epi16(_mm512_srai_epi16(ab, 8), _mm512_srai_epi16(cd, 8)); }
    __m512i low() const {
      const __m512i byte = _mm512_set1_epi16(255);
      return _mm512_packus_epi16(_mm512_and_si512(ab, byte), _mm512_and_si512(cd, byte));
    }
  };

  // kSize: the head size, 0 where only the call knows it.
  template <int kSize>
  static void run_size(const AttentionCall& call) {
    const int tokens = call.tokens, size = kSize > 0 ? kSize : call.head_size;
    const int deep = (size + 63) / 64 * 64, channels = (size + 15) / 16 * 16;
    const int keys = (tokens + 15) / 16 * 16, long_tokens = (tokens + 63) / 64 * 64;
    const int key_count = keys / 16, channel_count = channels / 16, deep_count = deep / 64, long_count = long_tokens / 64;
    const int pages = attention_pages(tokens, size);
    uint8_t* const base = call.scratch;
    // Tile i of the lower halves, or of the upper; two in each half.
    const auto half_tile = [base](int upper, int i) { return base + i / 2 * kPage + upper * kHalf + i % 2 * kTile; };
    // Sums of product i, and what it reads and its scores, which are in the other halves.
    const auto sums_of = [&](int i) { return half_tile(i % 2, 0); };
    const int first_score = 2, first_key = first_score + (key_count + 1) / 2;
    const int first_value = first_key + (key_count + 1) / 2 * deep_count, first_p = first_value + (channel_count + 1) / 2 * long_count;
    const auto score_tile = [&](int i) { return reinterpret_cast<float*>(half_tile(1 - i % 2, first_score + i / 2)); };
    const auto key_tile = [&](int i, int d) { return half_tile(1 - i % 2, first_key + i / 2 * deep_count + d / 64); };
    const auto value_tile = [&](int i, int t) { return half_tile(1 - (key_count + i) % 2, first_value + i / 2 * long_count + t / 64); };
    const auto p_tile = [&](int t, int part) { return half_tile(part, first_p + t / 64); };
    uint8_t* at = base + pages * kPage;
    const auto take = [&at](ptrdiff_t bytes) {
      uint8_t* start = at;
      at += (bytes + 63) / 64 * 64;
      return start;
    };
    uint8_t* q_high = take(keys * deep);
    uint8_t* q_low = take(keys * deep);
    uint8_t* sixteen = take(16 * deep);
    auto* query_scale = reinterpret_cast<float*>(take(4 * keys));
    auto* inverse = reinterpret_cast<float*>(take(4 * deep));
    auto* scale = reinterpret_cast<float*>(take(4 * deep));

    // Sixteen values from x + i; zeros beyond the last channel.
    const auto values = [&](const float* x, int i) {
      return size - i >= 16 ? load(x + i) : size > i ? load_first(x + i, size - i) : set1(0.0f);
    };

    channel_scales_of(call.k, call, inverse, scale);
    const float level = query_level(size), root = kLog2E / std::sqrt(static_cast<float>(size));
    for (int first = 0; first < tokens; first += kRows) {
      // Sixteen tokens, the last more than once where fewer are left.
      const auto row = [&](int r) { return call.q + (first + r < tokens ? first + r : tokens - 1) * call.stride; };
      F32x16 top16[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const float* x = row(r);
        top16[r] = set1(0.0f);
        for (int i = 0; i < size; i += 16) top16[r] = max(abs(values(x, i) * load(scale + i)), top16[r]);
      }
      const __m512 top = largest_of_each(top16).v;
      const __mmask16 some = _mm512_cmp_ps_mask(top, _mm512_set1_ps(kNoAttentionScale), _CMP_GT_OQ);
      alignas(64) float times[kRows];
      _mm512_store_ps(times, _mm512_maskz_div_ps(some, _mm512_set1_ps(level), top));
      _mm512_store_ps(query_scale + first, _mm512_mul_ps(_mm512_maskz_div_ps(some, top, _mm512_set1_ps(level)), _mm512_set1_ps(root)));
      for (int r = 0; r < kRows; ++r) {
        const float* x = row(r);
        const F32x16 factor = set1(times[r]);
        const auto value = [&](int i) { return values(x, i) * load(scale + i) * factor; };
        for (int i = 0; i < deep; i += 64) {
          const Packed packed(value(i), value(i + 16), value(i + 32), value(i + 48));
          _mm512_store_si512(q_high + (first + r) * deep + i, packed.high());
          _mm512_store_si512(q_low + (first + r) * deep + i, packed.low());
        }
      }
    }
    for (int first = 0; first < keys; first += 16) {
      // Keys beyond the last are whatever was here: their scores are not looked at.
      for (int t = first; t < first + 16 && t < tokens; ++t) {
        const float* x = call.k + t * call.stride;
        const auto value = [&](int i) { return values(x, i) * load(inverse + i); };
        for (int i = 0; i < deep; i += 64)
          _mm512_store_si512(sixteen + (t - first) * deep + i, Packed(value(i), value(i + 16), value(i + 32), value(i + 48)).bytes());
      }
      for (int i = 0; i < deep; i += 64)
        Avx512VnniTile16::transpose_pairs(reinterpret_cast<const int16_t*>(sixteen + i), deep / 2,
                                          reinterpret_cast<int16_t*>(key_tile(first / 16, i)), 32);
    }
    channel_scales_of(call.v, call, inverse, scale);
    // Bytes of four tokens, side by side in each quarter -> those of each channel side by side.
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (int c = 0; c < channels; c += 16) {
      const F32x16 factor = load(inverse + c);
      for (int t = 0; t < long_tokens; t += 4) {
        const auto value = [&](int i) { return t + i < tokens ? values(call.v + (t + i) * call.stride, c) * factor : set1(0.0f); };
        const int place = t % 16 * 4 + t % 64 / 16 * 4;  // as packing leaves probabilities
        _mm512_store_si512(value_tile(c / 16, t) + place * 16,
                           _mm512_shuffle_epi8(Packed(value(0), value(1), value(2), value(3)).bytes(), turn));
      }
    }

    const auto whole = [](const int32_t* sums, int r) {
      const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sums + r * 16), 8);
      return F32x16{_mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(sums + kSums + r * 16)))};
    };
    alignas(64) float factors[2][kRows];
    F32x16 top[kRows];
    const F32x16 bits = set1(static_cast<float>(probability_bits(tokens)));

    // Scores of sixteen queries, [sixteen keys][query][key].
    const auto multiply_scores = [&](int first, int i, auto pair) {
      constexpr int tile = 2 * decltype(pair)::value;
      for (int d = 0; d < deep; d += 64) {
        load_tile<6>(key_tile(i, d), kTileBytes);
        if (deep > 64 || i == 0) load_tile<4>(q_high + first * deep + d, deep);
        dot_tiles<true, true, tile, 4, 6>();
        if (deep > 64 || i == 0) load_tile<5>(q_low + first * deep + d, deep);
        dot_tiles<false, true, tile + 1, 5, 6>();
      }
    };
    const auto finish_scores = [&](int i, const int32_t* sums) {
      float* out = score_tile(i);
      const int left = tokens - 16 * i;
      const auto some = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const F32x16 sum = whole(sums, r);
        top[r].v = _mm512_mask_max_ps(top[r].v, some, sum.v, top[r].v);
        store(out + r * 16, sum);
      }
    };
    // They become P.
    const auto softmax = [&](int first, float* factor) {
      alignas(64) float tops[kRows];
      store(tops, largest_of_each(top));
      F32x16 total[kRows];
#pragma GCC unroll 1
      for (int r = 0; r < kRows; ++r) {
        const F32x16 scale_r = set1(query_scale[first + r]), top_r = set1(tops[r]);
        const auto e_of = [&](int key) { return exponential(load(score_tile(key / 16) + r * 16), top_r, scale_r, bits); };
        const auto keep = [&](int key, const F32x16 (&e)[4]) {
          const Packed packed(e[0], e[1], e[2], e[3]);
          _mm512_store_si512(p_tile(key, 0) + r * kTileBytes, packed.high());
          _mm512_store_si512(p_tile(key, 1) + r * kTileBytes, packed.low());
        };
        int key = 0;
        F32x16 e[4], sum = set1(0.0f);
        for (; key + 64 <= tokens; key += 64) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            e[j] = e_of(key + 16 * j);
            sum = sum + e[j];
          }
          keep(key, e);
        }
        if (key < tokens) {
          for (int j = 0; j < 4; ++j) {
            const int left = tokens - key - 16 * j;
            e[j] = left > 0 ? e_of(key + 16 * j) : set1(0.0f);
            if (left > 0 && left < 16) e[j] = fill_beyond(e[j], left, 0.0f);
            if (left > 0) sum = sum + e[j];
          }
          keep(key, e);
        }
        total[r] = sum;
      }
      store(factor, set1(1.0f) / sum_of_each(total));
    };
    // Sixteen channels of the context of sixteen queries.
    const auto multiply_context = [&](int i, auto pair) {
      constexpr int tile = 2 * decltype(pair)::value;
      for (int t = 0; t < long_tokens; t += 64) {
        load_tile<7>(value_tile(i, t), kTileBytes);
        load_tile<4>(p_tile(t, 0), kTileBytes);
        dot_tiles<false, true, tile, 4, 7>();
        load_tile<5>(p_tile(t, 1), kTileBytes);
        dot_tiles<false, true, tile + 1, 5, 7>();
      }
    };
    const auto finish_context = [&](int first, int i, const int32_t* sums, const float* factor) {
      const int rows = tokens - first < kRows ? tokens - first : kRows, left = size - 16 * i;
      const F32x16 channel = load(scale + 16 * i);
      float* y = call.y + first * call.y_stride + 16 * i;
      for (int r = 0; r < rows; ++r, y += call.y_stride) {
        const F32x16 value = whole(sums, r) * (set1(factor[r]) * channel);
        if (left >= 16)
          store(y, value);
        else
          store_first(y, value, left);
      }
    };

    configure_tiles(kTileRows, kTileRows);
    // Products of a turn: scores of sixteen queries, then the context of the sixteen before: a tile that reads what was just
    // written would wait for it.
    for (int first = 0, turn = 0; first < tokens + kRows; first += kRows, ++turn) {
      const int scores = first < tokens ? key_count : 0, count = scores + (turn > 0 ? channel_count : 0);
      float* const factor = factors[turn % 2];
      const float* const factor_before = factors[1 - turn % 2];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) top[r] = set1(-3.0e38f);
      const auto step = [&](int i, auto pair) {
        constexpr int tile = 2 * decltype(pair)::value;
        if (i < count) {
          zero_tile<tile>();
          zero_tile<tile + 1>();
          if (i < scores)
            multiply_scores(first, i, pair);
          else
            multiply_context(i - scores, pair);
        }
        if (i > 0 && i <= count) {
          store_tile<2 - tile>(sums_of(i - 1), kTileBytes);
          store_tile<3 - tile>(sums_of(i - 1) + kTile, kTileBytes);
        }
        if (i > 1) {
          const auto* sums = reinterpret_cast<const int32_t*>(sums_of(i - 2));
          if (i - 2 < scores)
            finish_scores(i - 2, sums);
          else
            finish_context(first - kRows, i - 2 - scores, sums, factor_before);
        }
        if (scores > 0 && i == std::max(count, scores + 1)) softmax(first, factor);
      };
      for (int i = 0; i < count + 2; i += 2) {
        step(i, std::integral_constant<int, 0>());
        if (i + 1 < count + 2) step(i + 1, std::integral_constant<int, 1>());
      }
    }
    release_tiles();
  }

  static void run(const AttentionCall& call) { call.head_size == 64 ? run_size<64>(call) : call.head_size == 32 ? run_size<32>(call) : run_size<0>(call); }
};

}  // namespace
}  // namespace sqb
