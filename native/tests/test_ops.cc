// Every operation on every instruction set of this machine against the reference, bit by bit, over odd sizes; and the
// references against plain double-precision formulas, within derived tolerances.
//
//     test_ops [quick]     quick: few rows of the large matrices, for emulators
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "check.h"
#include "kernels.h"
#include "ops/activation_floor.h"
#include "ops/reference.h"
#include "ops/reference_math.h"

using namespace sqb;

namespace {

struct Rows {
  Rows(int rows, int blocks, int block_size) {
    view.blocks = blocks;
    view.block_size = block_size;
    view.block_stride = round_up(block_size, kBlockMultiple);
    view.row_stride = odd_lines(blocks * view.block_stride);
    values.resize(static_cast<size_t>(rows * view.row_stride));
    const auto places = static_cast<size_t>(rows) * static_cast<size_t>(blocks);
    scale.resize(places);
    zero.resize(places);
    sum.resize(places);
    wide_count.resize(places);
    wide.resize(places * kMostWide);
    view.values = values.data();
    view.scale = scale.data();
    view.zero = zero.data();
    view.sum = sum.data();
    view.wide_count = wide_count.data();
    view.wide = wide.data();
  }
  // The number that place (row, channel) stands for.
  double value(int row, int channel) const {
    const int block = channel / view.block_size, k = channel % view.block_size;
    const auto place = static_cast<size_t>(row * view.blocks + block);
    double q = values[static_cast<size_t>(row * view.row_stride + block * view.block_stride + k)];
    for (int i = 0; i < wide_count[place]; ++i)
      if (wide[place * kMostWide + static_cast<size_t>(i)].place == k) q += wide[place * kMostWide + static_cast<size_t>(i)].excess;
    return scale[place] * (q + zero[place]);
  }
  Quantized view;
  std::vector<int8_t> values;
  std::vector<float> scale;
  std::vector<int32_t> zero, sum, wide_count;
  std::vector<Wide> wide;
};

constexpr int kTokens[] = {1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 50, 127, 129, 512};
bool quick = false;

void test_quantize(const Kernels& kernels, std::mt19937& random) {
  for (const float floor : {0.0f, 0.1701f, 0.2785f})
    for (const int block_size : {1, 3, 15, 16, 17, 24, 48, 96, 192, 384, 768, 1537})
      for (const float outlier : {1.0f, 100.0f, 1e7f}) {
        const int rows = 9, blocks = 3;
        std::vector<float> x = draw(random, static_cast<size_t>(rows * blocks * block_size));
        for (float& v : x) v = std::max(v, floor == 0.0f ? -1e9f : -floor);
        for (int r = 0; r < rows; ++r) x[static_cast<size_t>(r * blocks * block_size + (r * 7) % (blocks * block_size))] *= outlier;
        for (float& v : x) v = std::max(v, floor == 0.0f ? -1e9f : -floor);
        std::fill(x.begin(), x.begin() + block_size, 0.0f);  // a block of zeros
        Rows want(rows, blocks, block_size), got(rows, blocks, block_size);
        reference::quantize(x.data(), blocks * block_size, rows, floor, want.view);
        kernels.quantize(x.data(), blocks * block_size, rows, floor, got.view);
        const bool same = want.values == got.values && want.sum == got.sum && want.zero == got.zero &&
                          want.wide_count == got.wide_count && differing("scale", got.scale, want.scale) == 0;
        CHECK(same, "%s quantize block %d floor %g outlier %g", kernels.name, block_size, static_cast<double>(floor), static_cast<double>(outlier));
        for (size_t place = 0; place < want.wide_count.size(); ++place)
          for (int i = 0; i < want.wide_count[place]; ++i) {
            const Wide& w = want.wide[place * kMostWide + static_cast<size_t>(i)];
            const Wide& g = got.wide[place * kMostWide + static_cast<size_t>(i)];
            CHECK(w.place == g.place && w.excess == g.excess, "%s wide entry", kernels.name);
          }
        // Every value within half a step of what it stands for (the step is float, hence the slack).
        for (int r = 0; r < rows; ++r)
          for (int c = 0; c < blocks * block_size; ++c) {
            const double value = x[static_cast<size_t>(r * blocks * block_size + c)];
            const double step = want.scale[static_cast<size_t>(r * blocks + c / block_size)];
            CHECK(std::fabs(want.value(r, c) - value) <= 0.5001 * step + 1e-6 * std::fabs(value), "row %d channel %d: %g for %g, step %g",
                  r, c, want.value(r, c), value, step);
          }
      }
}

// What no trained model should give still gives the same on every instruction set, and does not touch its neighbours.
void test_quantize_strange(const Kernels& kernels, std::mt19937& random) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float floor : {0.0f, 0.1701f})
    for (const int block_size : {15, 63, 64, 65, 128, 192, 768})
      for (const float strange : {nan, infinity, -infinity, 3e38f, -3e38f, -0.1711f, -0.25f})
        for (const bool everywhere : {false, true}) {
          const int rows = 7, blocks = 3, size = blocks * block_size;  // places for sixteen, four and one at a time
          std::vector<float> x = draw(random, static_cast<size_t>(rows * size));
          for (float& v : x) v = std::max(v, floor == 0.0f ? -1e9f : -floor);
          const int first = size + block_size;  // the middle block of the middle row
          for (int i = 0; i < (everywhere ? block_size : 1); ++i) x[static_cast<size_t>(first + (i + 5) % block_size)] = strange;
          Rows want(rows, blocks, block_size), got(rows, blocks, block_size);
          reference::quantize(x.data(), size, rows, floor, want.view);
          kernels.quantize(x.data(), size, rows, floor, got.view);
          const bool same = want.values == got.values && want.sum == got.sum && want.zero == got.zero &&
                            want.wide_count == got.wide_count && std::memcmp(want.scale.data(), got.scale.data(), sizeof(float) * want.scale.size()) == 0;
          CHECK(same, "%s quantize block %d floor %g with %g %s", kernels.name, block_size, static_cast<double>(floor),
                static_cast<double>(strange), everywhere ? "everywhere" : "once");
        }
}

void test_outlier() {
  // One channel 100 times the rest: the others keep their levels.
  std::mt19937 random(5);
  for (const int n : {192, 768}) {
    std::vector<float> x = draw(random, static_cast<size_t>(n));
    x[17] = 100.0f * 3.0f;
    Rows rows(1, 1, n);
    reference::quantize(x.data(), n, 1, 0.0f, rows.view);
    CHECK(rows.wide_count[0] == 1, "%d wide entries", rows.wide_count[0]);
    CHECK(rows.scale[0] < 5.0f / 127.0f, "scale %g was made for the outlier", static_cast<double>(rows.scale[0]));
    CHECK(std::fabs(rows.value(0, 17) - 300.0) <= 0.5 * static_cast<double>(rows.scale[0]), "the outlier became %g", rows.value(0, 17));
  }
}

void test_linear(const Kernels& kernels, std::mt19937& random) {
  struct Shape {
    int groups, in, out, blocks;
  };
  const Shape shapes[] = {{4, 192, 192, 1}, {4, 192, 768, 1}, {4, 768, 192, 1}, {1, 768, 768, 4}, {4, 96, 96, 1},
                          {1, 384, 384, 4}, {2, 10, 14, 1},   {1, 7, 3, 1},     {3, 33, 65, 1},   {2, 34, 17, 2}, {1, 64, 2, 1}};
  for (const Shape& s : shapes)
    for (const int rows : kTokens) {
      const bool large = s.groups * s.in * s.out > (quick ? 20000 : 200000);
      if (large && (quick ? rows != 1 && rows != 17 : rows > 33 && rows != 127)) continue;
      for (const Activation activation : {Activation::none, Activation::gelu, Activation::gelu_new, Activation::relu, Activation::silu, Activation::tanh}) {
        if (activation != Activation::none && (rows != 17 || (quick && large))) continue;
        for (const int panel_vectors : {1, 2, 3, 4}) {
          if (panel_vectors != 4 && rows != 15 && rows != 31) continue;
          const int out = s.groups * s.out, in = s.groups * s.in;
          const std::vector<int8_t> weight = draw_int8(random, static_cast<size_t>(out * s.in));
          std::vector<float> scale = draw(random, static_cast<size_t>(out), 0.01f), bias = draw(random, static_cast<size_t>(out));
          for (float& v : scale) v = std::fabs(v);
          std::vector<float> x = draw(random, static_cast<size_t>(rows * in));
          for (int r = 0; r < rows; r += 3) x[static_cast<size_t>(r * in + r % in)] *= 200.0f;
          const bool asymmetric = rows % 2 == 1;
          if (asymmetric)
            for (float& v : x) v = std::max(v, -0.17f);
          Rows q(rows, s.groups * s.blocks, s.in / s.blocks);
          reference::quantize(x.data(), in, rows, asymmetric ? 0.1701f : 0.0f, q.view);
          Arena arena;
          const PackedLinear plain(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, Packing{false}, arena, panel_vectors);
          const PackedLinear packed(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, kernels.packing, arena, panel_vectors);
          const auto count = static_cast<size_t>(rows * out);
          std::vector<float> want(count), got(count, 7.0f);
          const size_t scratch_bytes = linear_scratch(packed.view(), s.groups, rows);
          AlignedBuffer<uint8_t> scratch(scratch_bytes + 64);
          std::memset(scratch.data() + scratch_bytes, 0xa5, 64);
          reference::grouped_linear({&plain.view(), &q.view, 0, plain.panel_count(), rows, want.data(), out, 0, activation, nullptr});
          const int middle = packed.panel_count() / 2;
          kernels.grouped_linear({&packed.view(), &q.view, 0, middle, rows, got.data(), out, 0, activation, scratch.data()});
          kernels.grouped_linear({&packed.view(), &q.view, middle, packed.panel_count(), rows, got.data(), out, 0, activation, scratch.data()});
          CHECK(std::all_of(scratch.data() + scratch_bytes, scratch.data() + scratch_bytes + 64, [](uint8_t b) { return b == 0xa5; }),
                "%s linear %dx%d->%d writes beyond its scratch", kernels.name, s.groups, s.in, s.out);
          CHECK(differing("linear", got, want) == 0, "%s linear %dx%d->%d blocks %d rows %d activation %d panels of %d", kernels.name,
                s.groups, s.in, s.out, s.blocks, rows, static_cast<int>(activation), panel_vectors);
          if (activation == Activation::none && &kernels == available_kernels().back())
            for (int r = 0; r < rows; ++r)
              for (int o = 0; o < out; ++o) {
                double sum = 0, size = 0;
                for (int k = 0; k < s.in; ++k) {
                  const double term = q.value(r, o / s.out * s.in + k) * weight[static_cast<size_t>(o * s.in + k)];
                  sum += term;
                  size += std::fabs(term);
                }
                const double exact = sum * static_cast<double>(scale[static_cast<size_t>(o)]) + static_cast<double>(bias[static_cast<size_t>(o)]);
                const double bound = 1e-6 * (size * static_cast<double>(scale[static_cast<size_t>(o)]) + std::fabs(exact) + 1);
                CHECK(std::fabs(want[static_cast<size_t>(r * out + o)] - exact) <= bound, "reference linear: %g, not %g",
                      static_cast<double>(want[static_cast<size_t>(r * out + o)]), exact);
              }
        }
      }
    }
}

void test_attention(const Kernels& kernels, std::mt19937& random) {
  for (const int size : {64, 32, 16, 5, 80, 130})
    for (const int tokens : kTokens) {
      if (tokens == 512 && (size != 64 || quick)) continue;
      const int stride = size + 3;
      const auto count = static_cast<size_t>(tokens * stride);
      std::vector<float> q = draw(random, count, 2.0f), k = draw(random, count), v = draw(random, count);
      for (int t = 0; t < tokens; ++t) k[static_cast<size_t>(t * stride + 1)] *= 100.0f;  // an outlier channel
      // Whatever an earlier call left in the scratch does not count, and nothing behind it is touched.
      const size_t scratch_bytes = attention_scratch(tokens, size);
      AlignedBuffer<uint8_t> scratch(scratch_bytes + 64);
      std::memset(scratch.data(), 0xa5, scratch_bytes + 64);
      std::vector<float> want(count), got(count);
      AttentionCall call{q.data(), k.data(), v.data(), stride, tokens, size, want.data(), stride, scratch.data()};
      reference::attention(call);
      call.y = got.data();
      kernels.attention(call);
      CHECK(differing("attention", got, want) == 0, "%s attention %d tokens of %d", kernels.name, tokens, size);
      CHECK(std::all_of(scratch.data() + scratch_bytes, scratch.data() + scratch_bytes + 64, [](uint8_t b) { return b == 0xa5; }),
            "%s attention %d tokens of %d writes beyond its scratch", kernels.name, tokens, size);
      if (tokens > 129) continue;
      // Scores are off by half a level of q and of k in each product, probabilities by that and by half a level, values by
      // half a level; see ops/attention.h.
      const auto at = [&](const std::vector<float>& x, int t, int d) { return static_cast<double>(x[static_cast<size_t>(t * stride + d)]); };
      const auto top_of = [&](const std::vector<float>& x, int d) {
        double top = 0;
        for (int t = 0; t < tokens; ++t) top = std::max(top, std::fabs(at(x, t, d)));
        return top;
      };
      std::vector<double> k_top, v_top;
      for (int d = 0; d < size; ++d) {
        k_top.push_back(top_of(k, d));
        v_top.push_back(top_of(v, d));
      }
      for (int i = 0; i < tokens; ++i) {
        // Of q times the scales of k: the largest, and the sum.
        double largest = 0, all = 0;
        for (int d = 0; d < size; ++d) {
          const double scaled = std::fabs(at(q, i, d)) * k_top[static_cast<size_t>(d)];
          largest = std::max(largest, scaled);
          all += scaled;
        }
        std::vector<double> e(static_cast<size_t>(tokens));
        double top = -1e300, total = 0;
        for (int j = 0; j < tokens; ++j) {
          double sum = 0;
          for (int d = 0; d < size; ++d) sum += at(q, i, d) * at(k, j, d);
          e[static_cast<size_t>(j)] = sum / std::sqrt(static_cast<double>(size));
          top = std::max(top, e[static_cast<size_t>(j)]);
        }
        const double level = static_cast<double>(query_level(size));
        const double score_error = (all * 0.501 / 127 + largest * size * 0.51 / level) / std::sqrt(static_cast<double>(size)) + 1e-6 * std::fabs(top);
        for (double& score : e) total += score = std::exp(score - top);
        for (int d = 0; d < size; ++d) {
          double sum = 0;
          for (int j = 0; j < tokens; ++j) sum += e[static_cast<size_t>(j)] / total * at(v, j, d);
          const double bound = v_top[static_cast<size_t>(d)] * (2 * std::expm1(2 * score_error) + (tokens + 2) / 65534.0 + 0.501 / 127);
          const double got_value = want[static_cast<size_t>(i * stride + d)];
          CHECK(std::fabs(got_value - sum) <= bound, "reference attention %d of %d: %g, not %g (bound %g)", size, tokens, got_value, sum, bound);
        }
      }
    }
}

// More tokens, and more channels, than sixteen bits of both factors leave room for; and scores so large that a rounding of
// theirs would pass what the sums have room for.
void test_attention_long(const Kernels& kernels, std::mt19937& random) {
  struct Shape {
    int tokens, size;
    float scale;
  };
  for (const Shape& shape : {Shape{517, 16, 1.0f}, Shape{1033, 5, 1.0f}, Shape{2064, 16, 300.0f}, Shape{3, 520, 1.0f}, Shape{17, 1024, 1.0f}}) {
    if (quick && shape.tokens > 1000) continue;
    const bool equal = shape.scale > 1.0f;  // keys and values: then every probability is the largest
    const auto count = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.size);
    std::vector<float> q = draw(random, count, shape.scale), k = draw(random, count, shape.scale), v = draw(random, count), want(count), got(count);
    for (size_t i = static_cast<size_t>(shape.size); equal && i < count; ++i) {
      k[i] = k[i % static_cast<size_t>(shape.size)];
      v[i] = v[i % static_cast<size_t>(shape.size)];
    }
    AlignedBuffer<uint8_t> scratch(attention_scratch(shape.tokens, shape.size));
    AttentionCall call{q.data(), k.data(), v.data(), shape.size, shape.tokens, shape.size, want.data(), shape.size, scratch.data()};
    reference::attention(call);
    call.y = got.data();
    kernels.attention(call);
    CHECK(differing("attention", got, want) == 0, "%s attention %d tokens of %d", kernels.name, shape.tokens, shape.size);
    for (size_t i = 0; equal && i < count; ++i) {
      const double value = static_cast<double>(v[i]);
      CHECK(std::fabs(static_cast<double>(want[i]) - value) <= 0.004 * std::fabs(value) + 1e-6, "attention of equal keys: %g, not %g",
            static_cast<double>(want[i]), value);
    }
  }
}

// One channel of the keys a hundred times the rest leaves the others their levels.
void test_attention_outlier() {
  std::mt19937 random(7);
  const int tokens = 40, size = 64;
  const auto count = static_cast<size_t>(tokens * size);
  std::vector<float> q = draw(random, count), k = draw(random, count), v = draw(random, count), y(count);
  // Where the queries are zero in that channel, scores are as without it.
  for (int t = 0; t < tokens; ++t) {
    k[static_cast<size_t>(t * size + 9)] *= 100.0f;
    q[static_cast<size_t>(t * size + 9)] = 0.0f;
  }
  reference::attention({q.data(), k.data(), v.data(), size, tokens, size, y.data(), size, nullptr});
  for (int i = 0; i < tokens; ++i) {
    std::vector<double> e;
    double total = 0;
    for (int j = 0; j < tokens; ++j) {
      double sum = 0;
      for (int d = 0; d < size; ++d) sum += static_cast<double>(q[static_cast<size_t>(i * size + d)]) * static_cast<double>(k[static_cast<size_t>(j * size + d)]);
      e.push_back(std::exp(sum / 8));
      total += e.back();
    }
    for (int d = 0; d < size; ++d) {
      double sum = 0;
      for (int j = 0; j < tokens; ++j) sum += e[static_cast<size_t>(j)] / total * static_cast<double>(v[static_cast<size_t>(j * size + d)]);
      CHECK(std::fabs(static_cast<double>(y[static_cast<size_t>(i * size + d)]) - sum) <= 0.02, "attention with an outlier: %g, not %g",
            static_cast<double>(y[static_cast<size_t>(i * size + d)]), sum);
    }
  }
}

void test_layer_norm(const Kernels& kernels, std::mt19937& random) {
  for (const int channels : {1, 5, 16, 17, 64, 96, 384, 768, 1023}) {
    const int rows = 5;
    const auto count = static_cast<size_t>(rows * channels);
    std::vector<float> x = draw(random, count), residual = draw(random, count), weight = draw(random, static_cast<size_t>(channels)),
                       bias = draw(random, static_cast<size_t>(channels));
    std::vector<float> want(count), got(count);
    for (const bool with : {false, true}) {
      LayerNormCall call{x.data(), channels, with ? residual.data() : nullptr, channels, weight.data(), bias.data(), 1e-12f, rows, channels, want.data(), channels};
      reference::layer_norm(call);
      call.y = got.data();
      kernels.layer_norm(call);
      CHECK(differing("layer_norm", got, want) == 0, "%s layer_norm %d", kernels.name, channels);
      if (channels < 5) continue;
      for (int r = 0; r < rows; ++r) {
        double mean = 0, squares = 0;
        std::vector<double> s(static_cast<size_t>(channels));
        for (int c = 0; c < channels; ++c) {
          const auto at = static_cast<size_t>(r * channels + c);
          s[static_cast<size_t>(c)] = static_cast<double>(x[at]) + (with ? static_cast<double>(residual[at]) : 0.0);
          mean += s[static_cast<size_t>(c)] / channels;
        }
        for (const double v : s) squares += (v - mean) * (v - mean) / channels;
        for (int c = 0; c < channels; ++c) {
          const double normal = (s[static_cast<size_t>(c)] - mean) / std::sqrt(squares + 1e-12);
          const double exact = normal * static_cast<double>(weight[static_cast<size_t>(c)]) + static_cast<double>(bias[static_cast<size_t>(c)]);
          CHECK(std::fabs(want[static_cast<size_t>(r * channels + c)] - exact) <= 4e-6 * (1 + std::fabs(exact)), "reference layer_norm");
        }
      }
    }
  }
}

void test_embedding(const Kernels& kernels, std::mt19937& random) {
  for (const int channels : {1, 16, 19, 96, 768}) {
    const int vocabulary = 50, positions = 40, rows = 33;
    const std::vector<int8_t> word = draw_int8(random, static_cast<size_t>(vocabulary * channels)), position = draw_int8(random, static_cast<size_t>(positions * channels));
    const std::vector<float> word_scale = draw(random, vocabulary), position_scale = draw(random, positions), type = draw(random, static_cast<size_t>(2 * channels));
    const EmbeddingTables tables{word.data(), word_scale.data(), position.data(), position_scale.data(), type.data(), channels};
    std::vector<int32_t> ids(rows), types(rows), places(rows);
    for (int r = 0; r < rows; ++r) ids[static_cast<size_t>(r)] = (r * 7 + 49) % vocabulary, types[static_cast<size_t>(r)] = r % 2, places[static_cast<size_t>(r)] = (r + 39) % positions;
    std::vector<float> want(static_cast<size_t>(rows * channels)), got(want.size());
    reference::embedding({&tables, ids.data(), types.data(), places.data(), rows, want.data(), channels});
    kernels.embedding({&tables, ids.data(), types.data(), places.data(), rows, got.data(), channels});
    CHECK(differing("embedding", got, want) == 0, "%s embedding %d", kernels.name, channels);
  }
}

void test_functions() {
  double worst_gelu = 0, worst_exp = 0, worst_tanh = 0, least = 0;
  for (int i = -900000; i <= 900000; i += quick ? 100 : 1) {
    const float x = static_cast<float>(i) * 1e-5f;
    const double d = static_cast<double>(x);
    const double gelu = static_cast<double>(reference::gelu(x));
    worst_gelu = std::max(worst_gelu, std::fabs(gelu - 0.5 * d * (1 + std::erf(d / std::sqrt(2.0)))));
    least = std::min(least, gelu);
    worst_tanh = std::max(worst_tanh, std::fabs(static_cast<double>(reference::activate(Activation::tanh, x)) - std::tanh(d)));
    const float y = x * 9.0f;
    // Rounding y * log2(e) moves the result by as much as y is large.
    worst_exp = std::max(worst_exp, std::fabs(static_cast<double>(reference::exp(y)) / std::exp(static_cast<double>(y)) - 1) / (1 + std::fabs(static_cast<double>(y)) / 4));
  }
  std::printf("errors: gelu %.2e, tanh %.2e, exp %.2e relative\n", worst_gelu, worst_tanh, worst_exp);
  CHECK(worst_gelu <= 1.6e-4, "%g", worst_gelu);
  CHECK(worst_tanh <= 5e-7, "%g", worst_tanh);
  CHECK(worst_exp <= 3e-7, "%g", worst_exp);
  CHECK(least >= -static_cast<double>(activation_floor(Activation::gelu)), "%g", least);
  CHECK(reference::gelu(1e30f) == 1e30f && std::fabs(reference::gelu(-1e30f)) <= 1.6e-4f && reference::gelu(0.0f) == 0.0f, "the ends");
}

}  // namespace

int main(int argc, char** argv) {
  quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  test_functions();
  test_outlier();
  test_attention_outlier();
  for (const Kernels* kernels : available_kernels()) {
    CHECK(enable(*kernels), "%s is refused", kernels->name);
    std::mt19937 random(1);
    test_quantize(*kernels, random);
    test_quantize_strange(*kernels, random);
    test_linear(*kernels, random);
    test_attention(*kernels, random);
    test_attention_long(*kernels, random);
    test_layer_norm(*kernels, random);
    test_embedding(*kernels, random);
    std::printf("%s: %d failures so far\n", kernels->name, failures());
  }
  return finish();
}
