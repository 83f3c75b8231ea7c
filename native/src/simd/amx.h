// Tiles of AMX: eight registers of up to sixteen rows of 64 bytes.
//
// Instructions by name rather than by intrinsics, whose loads do not tell g++ 12 that they read memory. A thread's tiles
// must be configured before use and released after it, since what they hold is saved whenever the thread is put aside.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row: 64 bytes or 16 sums

// Tiles 0 to 3 are sums, 4 and 5 rows of the first factor, 6 and 7 of the second. Sums 0 and 1 belong to tile 4, with
// `first` rows, 2 and 3 to tile 5, with `second`; none where that is not above zero.
inline void configure_tiles(int first, int second) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  const int rows[8] = {first, first, second, second, first, second, kTileRows, kTileRows};
  for (int i = 0; i < 8; ++i)
    if (rows[i] > 0) {
      config.rows[i] = static_cast<uint8_t>(rows[i]);
      config.row_bytes[i] = kTileBytes;
    }
  asm volatile("ldtilecfg %0" : : "m"(config));
}
inline void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int tile>
[[gnu::always_inline]] inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}
// Rows `stride` bytes apart.
template <int tile>
[[gnu::always_inline]] inline void load_tile(const void* p, ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
[[gnu::always_inline]] inline void store_tile(void* p, ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(tile) : "memory");
}
// sums[r][c] += a[r][4 g + i] * b[g][4 c + i] over sixteen groups g of four bytes, signed or not.
template <bool a_signed, bool b_signed, int sums, int a, int b>
[[gnu::always_inline]] inline void dot_tiles() {
#define SQB_DOT(name) asm volatile(name " %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b))
  if constexpr (a_signed && b_signed) SQB_DOT("tdpbssd");
  if constexpr (a_signed && !b_signed) SQB_DOT("tdpbsud");
  if constexpr (!a_signed && b_signed) SQB_DOT("tdpbusd");
  if constexpr (!a_signed && !b_signed) SQB_DOT("tdpbuud");
#undef SQB_DOT
}

}  // namespace
}  // namespace sqb
