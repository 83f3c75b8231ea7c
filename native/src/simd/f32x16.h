// Sixteen floats as one value, for every instruction set: the vocabulary of all fp32 arithmetic in the engine.
//
// Every operation here rounds once and in the same way wherever it runs (fused multiply-add included), and sums run
// over the same sixteen partial sums and the same tree. So code written in these terms gives the same bits on AVX-512,
// AVX2 and NEON as the plain loops of the references do. WebAssembly has a fused multiply-add only among its relaxed
// instructions: without them results differ by rounding.
//
// Include from one instruction set's translation unit only; the namespace is that set's own.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define SQB_SIMD_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define SQB_SIMD_AVX2 1
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define SQB_SIMD_NEON 1
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define SQB_SIMD_WASM 1
#endif

namespace sqb {
namespace {

#if SQB_SIMD_AVX512

struct F32x16 {
  __m512 v;
};
inline F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32x16 x) { _mm512_storeu_ps(p, x.v); }
// The first n lanes, 0 < n <= 16; the others are zero.
inline F32x16 load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)}; }
inline void store_first(float* p, F32x16 x, int n) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x.v); }
// Lanes n and beyond become `fill`.
inline F32x16 fill_beyond(F32x16 x, int n, float fill) {
  return {_mm512_mask_mov_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1u << n) - 1), x.v)};
}
inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The second operand where either is NaN, as on x86.
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
inline F32x16 round(F32x16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// x where x <= limit, else zero.
inline F32x16 zero_above(F32x16 x, F32x16 limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_LE_OQ), x.v)};
}
// a * 2^n for whole n, both within the normal range.
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}
// Rounded to the nearest whole number (even where two are), and held within the type.
inline void store_int8(int8_t* p, F32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
// Sixty-four of them at once, `shift` added after rounding, and held within -127..127.
inline void store_int8(int8_t* p, const F32x16 (&x)[4], int shift) {
  const auto two = [&](int i) {
    const __m512i packed = _mm512_packs_epi32(_mm512_cvtps_epi32(x[i].v), _mm512_cvtps_epi32(x[i + 1].v));
    return _mm512_adds_epi16(packed, _mm512_set1_epi16(static_cast<int16_t>(shift)));
  };
  // Packing goes by quarters of a register: four bytes of x[0], x[1], x[2], x[3], then the next four of each.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i all = _mm512_max_epi8(_mm512_packs_epi16(two(0), two(2)), _mm512_set1_epi8(-127));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, all));
}
// Of n bytes, a multiple of 64.
inline int32_t sum_int8(const int8_t* p, int n) {
  __m512i total = _mm512_setzero_si512();
  for (int i = 0; i < n; i += 64)
    total = _mm512_add_epi64(total, _mm512_sad_epu8(_mm512_xor_si512(_mm512_loadu_si512(p + i), _mm512_set1_epi8(-128)), _mm512_setzero_si512()));
  return static_cast<int32_t>(_mm512_reduce_add_epi64(total)) - 128 * n;
}
inline void store_int16(int16_t* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.v)));
}
// Even and odd values, rounded, side by side: even[0], odd[0], even[1], ...; within -32768..32767.
inline void store_pairs(int16_t* p, F32x16 even, F32x16 odd) {
  const __m512i low = _mm512_and_si512(_mm512_cvtps_epi32(even.v), _mm512_set1_epi32(0xffff));
  _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtps_epi32(odd.v), 16)));
}
inline F32x16 load_int8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F32x16 load_int32(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
// One whole number in all lanes.
inline F32x16 set1_int32(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_set1_epi32(*p))}; }

#elif SQB_SIMD_AVX2

struct F32x16 {
  __m256 v[2];
};
inline F32x16 set1(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
inline F32x16 load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
inline void store(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.v[0]);
  _mm256_storeu_ps(p + 8, x.v[1]);
}
#define SQB_BINARY(name, op) \
  inline F32x16 name(F32x16 a, F32x16 b) { return {{op(a.v[0], b.v[0]), op(a.v[1], b.v[1])}}; }
SQB_BINARY(operator+, _mm256_add_ps)
SQB_BINARY(operator-, _mm256_sub_ps)
SQB_BINARY(operator*, _mm256_mul_ps)
SQB_BINARY(operator/, _mm256_div_ps)
SQB_BINARY(max, _mm256_max_ps)
SQB_BINARY(min, _mm256_min_ps)
#undef SQB_BINARY
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
inline F32x16 abs(F32x16 a) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {{_mm256_and_ps(a.v[0], mask), _mm256_and_ps(a.v[1], mask)}};
}
inline F32x16 round(F32x16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {{_mm256_round_ps(a.v[0], mode), _mm256_round_ps(a.v[1], mode)}};
}
inline F32x16 zero_above(F32x16 x, F32x16 limit) {
  return {{_mm256_and_ps(x.v[0], _mm256_cmp_ps(x.v[0], limit.v[0], _CMP_LE_OQ)),
           _mm256_and_ps(x.v[1], _mm256_cmp_ps(x.v[1], limit.v[1], _CMP_LE_OQ))}};
}
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  F32x16 y;
  for (int i = 0; i < 2; ++i)
    y.v[i] = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a.v[i]), _mm256_slli_epi32(_mm256_cvtps_epi32(n.v[i]), 23)));
  return y;
}
inline __m256i to_int16(F32x16 x) {  // 16 values, in order
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(x.v[0]), _mm256_cvtps_epi32(x.v[1]));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
inline void store_int16(int16_t* p, F32x16 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_int16(x)); }
inline void store_int8(int8_t* p, F32x16 x) {
  const __m256i wide = to_int16(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
}
inline void store_int8(int8_t* p, const F32x16 (&x)[4], int shift) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int i = 0; i < 4; i += 2) {
    const auto one = [&](F32x16 v) {
      const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.v[0]), _mm256_cvtps_epi32(v.v[1]));
      return _mm256_adds_epi16(packed, _mm256_set1_epi16(static_cast<int16_t>(shift)));
    };
    const __m256i both = _mm256_max_epi8(_mm256_packs_epi16(one(x[i]), one(x[i + 1])), _mm256_set1_epi8(-127));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16 * i), _mm256_permutevar8x32_epi32(both, order));
  }
}
inline int32_t sum_int8(const int8_t* p, int n) {
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < n; i += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    total = _mm256_add_epi64(total, _mm256_sad_epu8(_mm256_xor_si256(x, _mm256_set1_epi8(-128)), _mm256_setzero_si256()));
  }
  int64_t four[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(four), total);
  return static_cast<int32_t>(four[0] + four[1] + four[2] + four[3]) - 128 * n;
}
inline F32x16 load_int8(const int8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {{_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))}};
}
inline F32x16 load_int32(const int32_t* p) {
  return {{_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
           _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))}};
}

#elif SQB_SIMD_NEON || SQB_SIMD_WASM

#if SQB_SIMD_NEON
using F32x4 = float32x4_t;
#else
using F32x4 = v128_t;
#endif
struct F32x16 {
  F32x4 v[4];
};
#define SQB_EACH(expression)                    \
  F32x16 y;                                     \
  for (int i = 0; i < 4; ++i) y.v[i] = expression; \
  return y
#if SQB_SIMD_NEON
inline F32x16 set1(float x) { SQB_EACH(vdupq_n_f32(x)); }
inline F32x16 load(const float* p) { SQB_EACH(vld1q_f32(p + 4 * i)); }
inline void store(float* p, F32x16 x) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline F32x16 operator+(F32x16 a, F32x16 b) { SQB_EACH(vaddq_f32(a.v[i], b.v[i])); }
inline F32x16 operator-(F32x16 a, F32x16 b) { SQB_EACH(vsubq_f32(a.v[i], b.v[i])); }
inline F32x16 operator*(F32x16 a, F32x16 b) { SQB_EACH(vmulq_f32(a.v[i], b.v[i])); }
inline F32x16 operator/(F32x16 a, F32x16 b) { SQB_EACH(vdivq_f32(a.v[i], b.v[i])); }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { SQB_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
inline F32x16 max(F32x16 a, F32x16 b) { SQB_EACH(vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
inline F32x16 min(F32x16 a, F32x16 b) { SQB_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
inline F32x16 abs(F32x16 a) { SQB_EACH(vabsq_f32(a.v[i])); }
inline F32x16 round(F32x16 a) { SQB_EACH(vrndnq_f32(a.v[i])); }
inline F32x16 zero_above(F32x16 x, F32x16 limit) {
  SQB_EACH(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x.v[i]), vcleq_f32(x.v[i], limit.v[i]))));
}
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  SQB_EACH(vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.v[i]), vshlq_n_s32(vcvtnq_s32_f32(n.v[i]), 23))));
}
inline void store_int16(int16_t* p, F32x16 x) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vqmovn_s32(vcvtnq_s32_f32(x.v[i])));
}
inline void store_int8(int8_t* p, F32x16 x) {
  for (int i = 0; i < 2; ++i) {
    const int16x8_t wide =
        vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[2 * i])), vqmovn_s32(vcvtnq_s32_f32(x.v[2 * i + 1])));
    vst1_s8(p + 8 * i, vqmovn_s16(wide));
  }
}
inline F32x16 load_int8(const int8_t* p) {
  const int8x16_t x = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_s8(vget_high_s8(x));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline F32x16 load_int32(const int32_t* p) { SQB_EACH(vcvtq_f32_s32(vld1q_s32(p + 4 * i))); }
#else
inline F32x16 set1(float x) { SQB_EACH(wasm_f32x4_splat(x)); }
inline F32x16 load(const float* p) { SQB_EACH(wasm_v128_load(p + 4 * i)); }
inline void store(float* p, F32x16 x) {
  for (int i = 0; i < 4; ++i) wasm_v128_store(p + 4 * i, x.v[i]);
}
inline F32x16 operator+(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_add(a.v[i], b.v[i])); }
inline F32x16 operator-(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_sub(a.v[i], b.v[i])); }
inline F32x16 operator*(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_mul(a.v[i], b.v[i])); }
inline F32x16 operator/(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_div(a.v[i], b.v[i])); }
#if defined(__wasm_relaxed_simd__)
// Fused where the processor can, in all places alike.
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { SQB_EACH(wasm_f32x4_relaxed_madd(a.v[i], b.v[i], c.v[i])); }
#else
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { SQB_EACH(wasm_f32x4_add(wasm_f32x4_mul(a.v[i], b.v[i]), c.v[i])); }
#endif
inline F32x16 max(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_pmax(b.v[i], a.v[i])); }
inline F32x16 min(F32x16 a, F32x16 b) { SQB_EACH(wasm_f32x4_pmin(b.v[i], a.v[i])); }
inline F32x16 abs(F32x16 a) { SQB_EACH(wasm_f32x4_abs(a.v[i])); }
inline F32x16 round(F32x16 a) { SQB_EACH(wasm_f32x4_nearest(a.v[i])); }
inline F32x16 zero_above(F32x16 x, F32x16 limit) { SQB_EACH(wasm_v128_and(x.v[i], wasm_f32x4_le(x.v[i], limit.v[i]))); }
// Adding 1.5 * 2^23 leaves the rounded number in the low bits: three instructions in place of the eight or so that x86
// needs for i32x4.trunc_sat. |x| < 2^22.
inline v128_t with_bias(v128_t x) { return wasm_f32x4_add(x, wasm_f32x4_const_splat(12582912.0f)); }
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  SQB_EACH(wasm_i32x4_add(a.v[i], wasm_i32x4_shl(with_bias(n.v[i]), 23)));
}
inline v128_t to_int16(v128_t low, v128_t high) {
  const v128_t least = wasm_f32x4_const_splat(-32768.0f), most = wasm_f32x4_const_splat(32767.0f);
  const v128_t bias = wasm_i32x4_const_splat(0x4b400000);
  low = wasm_f32x4_pmin(most, wasm_f32x4_pmax(least, low));
  high = wasm_f32x4_pmin(most, wasm_f32x4_pmax(least, high));
  return wasm_i16x8_narrow_i32x4(wasm_i32x4_sub(with_bias(low), bias), wasm_i32x4_sub(with_bias(high), bias));
}
inline void store_int16(int16_t* p, F32x16 x) {
  for (int i = 0; i < 2; ++i) wasm_v128_store(p + 8 * i, to_int16(x.v[2 * i], x.v[2 * i + 1]));
}
inline void store_int8(int8_t* p, F32x16 x) {
  wasm_v128_store(p, wasm_i8x16_narrow_i16x8(to_int16(x.v[0], x.v[1]), to_int16(x.v[2], x.v[3])));
}
inline F32x16 load_int8(const int8_t* p) {
  const v128_t x = wasm_v128_load(p);
  const v128_t low = wasm_i16x8_extend_low_i8x16(x), high = wasm_i16x8_extend_high_i8x16(x);
  return {{wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(low)),
           wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(low)),
           wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(high)),
           wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(high))}};
}
inline F32x16 load_int32(const int32_t* p) { SQB_EACH(wasm_f32x4_convert_i32x4(wasm_v128_load(p + 4 * i))); }
#endif
#undef SQB_EACH

#else
#error "no vector instruction set: compile the reference instead"
#endif

#if SQB_SIMD_NEON || SQB_SIMD_WASM
inline void store_int8(int8_t* p, const F32x16 (&x)[4], int shift) {
  for (int i = 0; i < 4; ++i) store_int8(p + 16 * i, max(round(x[i]) + set1(static_cast<float>(shift)), set1(-127.0f)));
}
inline int32_t sum_int8(const int8_t* p, int n) {
#if SQB_SIMD_NEON
  int32x4_t total = vdupq_n_s32(0);
  for (int i = 0; i < n; i += 16) total = vpadalq_s16(total, vpaddlq_s8(vld1q_s8(p + i)));
  return vaddvq_s32(total);
#else
  v128_t total = wasm_i32x4_const_splat(0);
  for (int i = 0; i < n; i += 16)
    total = wasm_i32x4_add(total, wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(p + i))));
  return wasm_i32x4_extract_lane(total, 0) + wasm_i32x4_extract_lane(total, 1) + wasm_i32x4_extract_lane(total, 2) +
         wasm_i32x4_extract_lane(total, 3);
#endif
}
#endif

#if SQB_SIMD_AVX2
inline void store_pairs(int16_t* p, F32x16 even, F32x16 odd) {
  for (int i = 0; i < 2; ++i) {
    const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(even.v[i]), _mm256_set1_epi32(0xffff));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16 * i),
                        _mm256_or_si256(low, _mm256_slli_epi32(_mm256_cvtps_epi32(odd.v[i]), 16)));
  }
}
#elif SQB_SIMD_NEON
inline void store_pairs(int16_t* p, F32x16 even, F32x16 odd) {
  for (int i = 0; i < 4; ++i) {
    const int16x4x2_t both = {{vqmovn_s32(vcvtnq_s32_f32(even.v[i])), vqmovn_s32(vcvtnq_s32_f32(odd.v[i]))}};
    vst2_s16(p + 8 * i, both);  // a macro to clang, which would take an initialiser's commas for its own
  }
}
#elif SQB_SIMD_WASM
inline void store_pairs(int16_t* p, F32x16 even, F32x16 odd) {
  int16_t both[2][16];
  store_int16(both[0], even);
  store_int16(both[1], odd);
  for (int i = 0; i < 16; ++i) {
    p[2 * i] = both[0][i];
    p[2 * i + 1] = both[1][i];
  }
}
#endif

#if !SQB_SIMD_AVX512
inline F32x16 set1_int32(const int32_t* p) { return set1(static_cast<float>(*p)); }
inline F32x16 load_first(const float* p, int n) {
  float all[16] = {};
  std::memcpy(all, p, sizeof(float) * static_cast<size_t>(n));
  return load(all);
}
inline void store_first(float* p, F32x16 x, int n) {
  float all[16];
  store(all, x);
  std::memcpy(p, all, sizeof(float) * static_cast<size_t>(n));
}
inline F32x16 fill_beyond(F32x16 x, int n, float fill) {
  float all[16];
  store(all, x);
  for (int i = n; i < 16; ++i) all[i] = fill;
  return load(all);
}
#endif

// ((0+8)+(4+12))+... : halves are added until one lane is left.
inline float sum(F32x16 x) {
#if SQB_SIMD_AVX512 || SQB_SIMD_AVX2
#if SQB_SIMD_AVX512
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
#else
  const __m256 eight = _mm256_add_ps(x.v[0], x.v[1]);
#endif
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
#elif SQB_SIMD_NEON
  const float32x4_t four = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
#else
  float lane[16];
  store(lane, x);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
#endif
}
inline float largest(F32x16 x) {
#if SQB_SIMD_AVX512
  return _mm512_reduce_max_ps(x.v);
#elif SQB_SIMD_AVX2
  const __m256 eight = _mm256_max_ps(x.v[0], x.v[1]);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
#elif SQB_SIMD_NEON
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
#else
  float lane[16];
  store(lane, x);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
  return lane[0];
#endif
}

#if SQB_SIMD_AVX512
// Lane r: the largest lane of x[r].
inline F32x16 largest_of_each(const F32x16 (&x)[16]) {
  __m512 pairs[8], quads[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    pairs[i] = _mm512_max_ps(_mm512_unpacklo_ps(x[2 * i].v, x[2 * i + 1].v), _mm512_unpackhi_ps(x[2 * i].v, x[2 * i + 1].v));
  // A quarter of quads[i] holds rows 4 i to 4 i + 3 of its four lanes.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    quads[i] = _mm512_max_ps(_mm512_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0x44), _mm512_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0xee));
  const auto join = [](__m512 a, __m512 b) { return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd)); };
  return {join(join(quads[0], quads[1]), join(quads[2], quads[3]))};
}

// Lane r: the sum of the lanes of x[r], in the order of sum().
inline F32x16 sum_of_each(const F32x16 (&x)[16]) {
  __m512 eights[8], fours[4];
  const auto join = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); };
  // Halves of eights[i]: rows i and 8 + i; quarters of fours[i]: rows i, 4 + i, 8 + i, 12 + i.
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) eights[i] = join(x[i].v, x[8 + i].v);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = eights[i], b = eights[4 + i];
    fours[i] = _mm512_add_ps(_mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), b),
                             _mm512_permutex2var_ps(a, _mm512_setr_epi32(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31), b));
  }
  // In each quarter, of two rows and then of all four: 0 + 2 and 1 + 3, and both of them.
  const auto halves = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee)); };
  const __m512 a = halves(fours[0], fours[1]), b = halves(fours[2], fours[3]);
  return {_mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd))};
}

// The same of bytes: lane r is the sum of the n bytes at p[r], n a multiple of 64.
inline __m512i sum_int8_of_each(int8_t* const (&p)[16], int n) {
  __m512i x[16], y[8];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    x[r] = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 64) x[r] = _mm512_dpbusd_epi32(x[r], _mm512_set1_epi8(1), _mm512_loadu_si512(p[r] + i));
  }
  // Pairs of rows, then fours: a quarter of y[i] holds rows 4 i to 4 i + 3 of its four lanes.
  const auto pair = [](__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); };
  const auto four = [](__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)); };
  const auto join = [](__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd)); };
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) y[i] = pair(x[2 * i], x[2 * i + 1]);
  return join(join(four(y[0], y[1]), four(y[2], y[3])), join(four(y[4], y[5]), four(y[6], y[7])));
}
#endif

}  // namespace
}  // namespace sqb
