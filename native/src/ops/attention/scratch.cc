#include <algorithm>

#include "ops/attention.h"

namespace sqb {

int attention_pages(int tokens, int head_size) {
  const int keys = (tokens + 15) / 16, deep = (head_size + 63) / 64, channels = (head_size + 15) / 16, long_tokens = (tokens + 63) / 64;
  // Tiles of the lower halves, and of the upper: sums, scores, keys, values and probabilities.
  const int tiles = 2 + (keys + 1) / 2 + (keys + 1) / 2 * deep + (channels + 1) / 2 * long_tokens + long_tokens;
  return (tiles + 1) / 2;
}

size_t attention_scratch(int tokens, int head_size) {
  const size_t size = static_cast<size_t>(head_size + 31) / 32 * 32, count = static_cast<size_t>(tokens + 16) / 16 * 16;
  const size_t deep = static_cast<size_t>(head_size + 63) / 64 * 64;
  // Queries, keys, values; scales; six rows of scores and probabilities; sums; borders.
  const size_t pairs = 2 * size * (count * 3 + 16) + 4 * count + 8 * deep + 6 * (4 * count + 2 * (count + 16)) + 6 * 64 * 4 + 10 * 64;
  // amx.h: pages; queries in two parts, sixteen keys; scales; borders.
  const size_t tiles = static_cast<size_t>(kAttentionPage * attention_pages(tokens, head_size)) + deep * (count * 2 + 16) + 4 * count +
                       8 * deep + 8 * 64;
  return std::max(pairs, tiles);
}

}  // namespace sqb
