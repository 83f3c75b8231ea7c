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

// Of finite values no sum overflows; of others (a file's scales may be absurd) it wraps.
int32_t add_product(int32_t sum, int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

}  // namespace

void attention(const AttentionCall& call) {
  const int tokens = call.tokens, size = call.head_size;
  const auto count = static_cast<size_t>(tokens) * static_cast<size_t>(size);
  const auto place = [&](int t, int d) { return static_cast<size_t>(t) * static_cast<size_t>(size) + static_cast<size_t>(d); };
  std::vector<int32_t> q(count), k(count), v(count);
  std::vector<float> k_scale(static_cast<size_t>(size)), v_scale(static_cast<size_t>(size)), q_scale(static_cast<size_t>(tokens));
  const auto quantize_channel = [&](const float* x, int d, int32_t* out) {
    float top = 0.0f;
    for (int t = 0; t < tokens; ++t) top = std::max(top, std::fabs(x[t * call.stride + d]));
    const bool empty = !(top > kNoAttentionScale);
    for (int t = 0; t < tokens; ++t) out[place(t, d)] = to_level(x[t * call.stride + d], empty ? 0.0f : 127.0f / top);
    return empty ? 0.0f : top / 127.0f;
  };
  for (int d = 0; d < size; ++d) {
    k_scale[static_cast<size_t>(d)] = quantize_channel(call.k, d, k.data());
    v_scale[static_cast<size_t>(d)] = quantize_channel(call.v, d, v.data());
  }
  const float level = query_level(size), root = kLog2E / std::sqrt(static_cast<float>(size));
  std::vector<float> scaled(static_cast<size_t>(size));
  for (int t = 0; t < tokens; ++t) {
    float top = 0.0f;
    for (int d = 0; d < size; ++d) {
      scaled[static_cast<size_t>(d)] = call.q[t * call.stride + d] * k_scale[static_cast<size_t>(d)];
      top = std::max(top, std::fabs(scaled[static_cast<size_t>(d)]));
    }
    const bool empty = !(top > kNoAttentionScale);
    for (int d = 0; d < size; ++d) q[place(t, d)] = to_level(scaled[static_cast<size_t>(d)], empty ? 0.0f : level / top);
    q_scale[static_cast<size_t>(t)] = empty ? 0.0f : top / level * root;
  }
  const auto bits = static_cast<float>(probability_bits(tokens));
  std::vector<float> e(static_cast<size_t>(tokens));
  for (int i = 0; i < tokens; ++i) {
    const float scale = q_scale[static_cast<size_t>(i)];
    float top = -3.0e38f;
    for (int j = 0; j < tokens; ++j) {
      int32_t sum = 0;
      for (int d = 0; d < size; ++d) sum = add_product(sum, q[place(i, d)], k[place(j, d)]);
      e[static_cast<size_t>(j)] = static_cast<float>(sum);
      top = std::max(top, e[static_cast<size_t>(j)]);
    }
    LaneSum total;
    for (int j = 0; j < tokens; ++j) {
      e[static_cast<size_t>(j)] = exp2_inside(std::max(-125.0f, mul_add(e[static_cast<size_t>(j)] - top, scale, bits)));
      total.lane[j % 16] += e[static_cast<size_t>(j)];
    }
    const float factor = 1.0f / total.total();
    for (int d = 0; d < size; ++d) {
      int32_t sum = 0;
      for (int j = 0; j < tokens; ++j) sum = add_product(sum, to_level(e[static_cast<size_t>(j)], 1.0f), v[place(j, d)]);
      call.y[i * call.y_stride + d] = static_cast<float>(sum) * (factor * v_scale[static_cast<size_t>(d)]);
    }
  }
}

}  // namespace sqb::reference
