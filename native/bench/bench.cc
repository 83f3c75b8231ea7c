// Where the time goes: the product's layer shapes against the int8 ceiling of this core, and a whole pass operation by
// operation.
//
//     bench [instruction set]           products, one thread, least time of many
//     bench FOLDER THREADS [set]        an exported model at 1x16, 1x32, 1x128, 8x128, 1x512; with one thread also per operation
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "model.h"

#if SQB_X86
#include <immintrin.h>
#endif

using namespace sqb;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Work>
double least(int rounds, Work&& work) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double start = now();
    work();
    best = std::min(best, now() - start);
  }
  return best;
}

// Products a second, in 1e9, that independent instructions on registers reach.
double ceiling(const std::string& name) {
#if SQB_X86 && defined(__GNUC__)
  constexpr int loops = 20000;
#define SQB_24(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
  if (name == "avx512vnni") {
    const double time = least(50, [] {
      int n = loops;
#define SQB_ONE(i) "vpdpbusd %%zmm16, %%zmm17, %%zmm" #i "\n"
      asm volatile("1:\n" SQB_24(SQB_ONE) "dec %0\njnz 1b\n"
                   : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                     "xmm13", "xmm14", "xmm15", "cc");
#undef SQB_ONE
    });
    return loops * 16 * 64 / time / 1e9;
  }
#endif
  (void)name;
  return 0;
}

void products(const Kernels& kernels) {
  const double top = ceiling(kernels.name);
  std::printf("%s, one thread; ceiling %.0f GMAC/s\n", kernels.name, top);
  struct Shape {
    const char* name;
    int groups, in, out, blocks;
    Activation activation;
  };
  const Shape shapes[] = {{"query", 4, 192, 192, 1, Activation::none},          {"post-attention", 1, 768, 768, 4, Activation::none},
                          {"intermediate", 4, 192, 768, 1, Activation::none},   {"intermediate + gelu", 4, 192, 768, 1, Activation::gelu},
                          {"output", 4, 768, 192, 1, Activation::none},         {"small query", 4, 96, 96, 1, Activation::none},
                          {"small intermediate", 4, 96, 384, 1, Activation::none}};
  for (const Shape& s : shapes)
    for (const int rows : {16, 64, 128}) {
      const int in = s.groups * s.in, out = s.groups * s.out;
      std::vector<int8_t> weight(static_cast<size_t>(out) * static_cast<size_t>(s.in), 3);
      std::vector<float> scale(static_cast<size_t>(out), 0.01f), bias(static_cast<size_t>(out)), x(static_cast<size_t>(rows) * static_cast<size_t>(in));
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) - 6;
      Arena arena;
      const PackedLinear packed(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, kernels.plus128, arena);
      const int blocks = s.groups * s.blocks;
      const auto places = static_cast<size_t>(rows) * static_cast<size_t>(blocks);
      AlignedBuffer<int8_t> values(static_cast<size_t>(rows) * static_cast<size_t>(in));
      AlignedBuffer<float> x_scale(places);
      AlignedBuffer<int32_t> zero(places), sum(places), count(places);
      AlignedBuffer<Wide> wide(places * kMostWide);
      const Quantized q{values.data(), x_scale.data(), zero.data(), sum.data(), count.data(), wide.data(), blocks, in / blocks, in / blocks, in};
      kernels.quantize(x.data(), in, rows, 0.0f, q);
      std::vector<float> y(static_cast<size_t>(rows) * static_cast<size_t>(out));
      const double time = least(300, [&] {
        kernels.grouped_linear({&packed.view(), &q, 0, packed.panel_count(), rows, y.data(), out, 0, s.activation});
      });
      const double speed = static_cast<double>(rows) * out * s.in / time / 1e9;
      std::printf("%-20s %4d rows  %7.1f us  %6.1f GMAC/s", s.name, rows, time * 1e6, speed);
      if (top > 0) std::printf("  %3.0f %% of the ceiling", 100 * speed / top);
      std::printf("\n");
    }
}

// Kernels that keep time.
const Kernels* inner;
std::map<std::string, double> spent;

template <class Call>
void timed(const std::string& name, Call&& call) {
  const double start = now();
  call();
  spent[name] += now() - start;
}

const Kernels& timed_kernels(const Kernels& kernels) {
  inner = &kernels;
  static Kernels wrapped;
  wrapped = {kernels.name,
             kernels.plus128,
             [](const LinearCall& call) {
               const LinearWeights& w = *call.weights;
               timed("linear " + std::to_string(w.groups) + " x " + std::to_string(w.in) + " -> " + std::to_string(w.out),
                     [&] { inner->grouped_linear(call); });
             },
             [](const float* x, ptrdiff_t stride, int rows, float floor, const Quantized& out) {
               timed(floor == 0.0f ? "quantize" : "quantize after activation", [&] { inner->quantize(x, stride, rows, floor, out); });
             },
             [](const AttentionCall& call) { timed("attention", [&] { inner->attention(call); }); },
             [](const LayerNormCall& call) { timed("layer norm", [&] { inner->layer_norm(call); }); },
             [](const EmbeddingCall& call) { timed("embedding", [&] { inner->embedding(call); }); }};
  return wrapped;
}

void whole(const std::string& folder, int threads, const Kernels& kernels) {
  std::mt19937 random(1);
  const int shapes[][2] = {{1, 16}, {1, 32}, {1, 128}, {8, 128}, {1, 512}};
  Model model(Artifact::open(folder), kernels, threads);
  std::unique_ptr<Model> watched;
  if (threads == 1) watched = std::make_unique<Model>(Artifact::open(folder), timed_kernels(kernels), 1);
  for (const auto& [sequences, length] : shapes) {
    std::vector<int32_t> lengths(static_cast<size_t>(sequences), length), ids(static_cast<size_t>(sequences * length));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(model.config().vocab_size));
    std::vector<float> logits(static_cast<size_t>(sequences * std::max(model.config().num_labels, length)));
    const Batch batch{ids.data(), nullptr, lengths.data(), sequences};
    const Outputs outputs{logits.data(), nullptr, nullptr, nullptr};
    const int rounds = std::max(10, 6400 / (sequences * length));
    const double time = least(rounds, [&] { model.run(batch, outputs); });
    std::printf("%dx%d, %s, %d threads: %.3f ms\n", sequences, length, kernels.name, threads, time * 1e3);
    if (watched && length >= 128) {
      std::map<std::string, double> best;
      for (int i = 0; i < rounds; ++i) {
        spent.clear();
        watched->run(batch, outputs);
        for (const auto& [name, t] : spent) best[name] = best.count(name) ? std::min(best[name], t) : t;
      }
      for (const auto& [name, t] : best) std::printf("    %-28s %7.3f ms\n", name.c_str(), t * 1e3);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool model = argc > 2;
  const int name = model ? 3 : 1;
  const Kernels* kernels = argc > name ? find_kernels(argv[name]) : available_kernels().front();
  if (kernels == nullptr) return std::fprintf(stderr, "%s cannot run here\n", argv[name]), 2;
  try {
    if (model)
      whole(argv[1], std::atoi(argv[2]), *kernels);
    else
      products(*kernels);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 2;
  }
}
