#include "ops/attention.h"

namespace sqb {

size_t attention_scratch(int tokens, int head_size) {
  const size_t size = static_cast<size_t>(head_size + 31) / 32 * 32, count = static_cast<size_t>(tokens + 16) / 16 * 16;
  // Queries, keys, values; scales; six rows of scores and probabilities; sums; borders.
  return 2 * size * (count * 3 + 16) + 8 * count + 6 * (4 * count + 2 * (count + 16)) + 6 * 64 * 4 + 9 * 64;
}

}  // namespace sqb
