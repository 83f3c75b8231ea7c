// The product that AVX2 kernels are made of: int16 pairs by vpmaddwd into int32 sums.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

// c[r] += the pair at a + r * a_stride times the pairs of w0 (eight columns) and of w1. With six rows that is 12 sums, 2
// weights, 1 activation and 1 product in the sixteen registers. In assembly, since g++ adds products to one another first
// and spills them.
template <int R>
[[gnu::always_inline]] inline void add_products(const int16_t* a, ptrdiff_t a_stride, __m256i w0, __m256i w1, __m256i (&c)[R][2]) {
  using Two [[gnu::may_alias]] = int32_t;
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    __m256i x, product;
    asm("vpbroadcastd %[two], %[x]\n\t"
        "vpmaddwd %[w0], %[x], %[product]\n\t"
        "vpmaddwd %[w1], %[x], %[x]\n\t"
        "vpaddd %[product], %[c0], %[c0]\n\t"
        "vpaddd %[x], %[c1], %[c1]"
        : [c0] "+x"(c[r][0]), [c1] "+x"(c[r][1]), [x] "=&x"(x), [product] "=&x"(product)
        : [two] "m"(*reinterpret_cast<const Two*>(a + r * a_stride)), [w0] "x"(w0), [w1] "x"(w1));
  }
}

inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_bytes(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

}  // namespace
}  // namespace sqb
