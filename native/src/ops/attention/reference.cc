// The formula of ops/attention.h, one value at a time.
#include <algorithm>
#include <vector>

#include "ops/reference.h"
#include "ops/reference_math.h"

namespace sqb::reference {

namespace {

int32_t to_level(float x, float inverse) {
  return static_cast<int32_t>(std::max(-32768.0f, std::min(32767.0f, std::nearbyint(x * inverse))));
}

// Of finite values no sum overflows; of others (a file's scales may be absurd) it wraps, as vector instructions do.
int32_t add_product(int32_t sum, int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

}  // namespace

void attention(const AttentionCall& call) {
  const int tokens = call.tokens, size = call.head_size;
  const float level = std::fmin(std::floor(std::sqrt(2147483647.0 / size)), 32767.0);
  const float root = kLog2E / std::sqrt(static_cast<float>(size));
  const auto count = static_cast<size_t>(tokens) * static_cast<size_t>(size);
  std::vector<int32_t> q(count), k(count), v(count);
  std::vector<float> q_scale(static_cast<size_t>(tokens)), k_scale(static_cast<size_t>(tokens));
  std::vector<float> e(static_cast<size_t>(tokens));
  const auto quantize_row = [&](const float* x, int32_t* out, float factor) {
    float top = 0.0f;
    for (int d = 0; d < size; ++d) top = std::max(top, std::fabs(x[d]));
    const bool empty = !(top > 1e-30f);
    for (int d = 0; d < size; ++d) out[d] = to_level(x[d], empty ? 0.0f : level / top);
    return empty ? 0.0f : top / level * factor;
  };
  float v_top = 0.0f;
  for (int t = 0; t < tokens; ++t) {
    const size_t at = static_cast<size_t>(t) * static_cast<size_t>(size);
    q_scale[static_cast<size_t>(t)] = quantize_row(call.q + t * call.stride, q.data() + at, root);
    k_scale[static_cast<size_t>(t)] = quantize_row(call.k + t * call.stride, k.data() + at, 1.0f);
    for (int d = 0; d < size; ++d) v_top = std::max(v_top, std::fabs(call.v[t * call.stride + d]));
  }
  const bool empty = !(v_top > 1e-30f);
  for (int t = 0; t < tokens; ++t)
    for (int d = 0; d < size; ++d)
      v[static_cast<size_t>(t * size + d)] = to_level(call.v[t * call.stride + d], empty ? 0.0f : 32767.0f / v_top);
  const float context_scale = (empty ? 0.0f : v_top / 32767.0f) / 32767.0f;
  for (int i = 0; i < tokens; ++i) {
    float top = -3.0e38f;
    for (int j = 0; j < tokens; ++j) {
      int32_t sum = 0;
      for (int d = 0; d < size; ++d) sum = add_product(sum, q[static_cast<size_t>(i * size + d)], k[static_cast<size_t>(j * size + d)]);
      e[static_cast<size_t>(j)] = static_cast<float>(sum) * (q_scale[static_cast<size_t>(i)] * k_scale[static_cast<size_t>(j)]);
      top = std::max(top, e[static_cast<size_t>(j)]);
    }
    LaneSum total;
    for (int j = 0; j < tokens; ++j) {
      e[static_cast<size_t>(j)] = exp2_inside(std::max(-125.0f, e[static_cast<size_t>(j)] - top));
      total.lane[j % 16] += e[static_cast<size_t>(j)];
    }
    const float factor = 32767.0f / total.total();
    for (int d = 0; d < size; ++d) {
      int32_t sum = 0;
      for (int j = 0; j < tokens; ++j) sum = add_product(sum, to_level(e[static_cast<size_t>(j)], factor), v[static_cast<size_t>(j * size + d)]);
      call.y[i * call.y_stride + d] = static_cast<float>(sum) * context_scale;
    }
  }
}

}  // namespace sqb::reference
