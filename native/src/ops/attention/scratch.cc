#include <algorithm>

#include "ops/attention.h"

namespace sqb {

size_t attention_scratch(int tokens, int head_size) {
  const size_t size = static_cast<size_t>(head_size + 31) / 32 * 32, count = static_cast<size_t>(tokens + 16) / 16 * 16;
  // Queries, keys, values; scales; six rows of scores and probabilities; sums; borders.
  const size_t pairs = 2 * size * (count * 3 + 16) + 8 * count + 6 * (4 * count + 2 * (count + 16)) + 6 * 64 * 4 + 9 * 64;
  // The same on whole tiles (amx.h): sixteen rows at a time, sizes and tokens in 64s.
  const size_t deep = static_cast<size_t>(head_size + 63) / 64 * 64, long_count = static_cast<size_t>(tokens + 63) / 64 * 64;
  const size_t tiles = 2 * deep * (count * 2 + 16) + 2 * size * long_count + 8 * count + 16 * (4 * long_count + 4 * long_count) +
                       6 * 1024 + 13 * 64;
  return std::max(pairs, tiles);
}

}  // namespace sqb
