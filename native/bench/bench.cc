// Where the time goes: the product's layer shapes against the int8 ceiling of this core, and a whole pass operation by
// operation.
//
//     bench [instruction set]                    products, one thread, least time of many
//     bench FOLDER THREADS [set] [SHAPE...]      an exported model at SHAPE (1x16 1x32 1x128 8x128 1x512), about a second
//                                                each; with one thread also per operation
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model.h"
#include "simd/amx.h"

using namespace sqb;

namespace {

double wall() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Processor time of this thread, which other work on the machine disturbs least.
double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Work>
double least(int rounds, Work&& work, double (*clock)() = now) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double start = clock();
    work();
    best = std::min(best, clock() - start);
  }
  return best;
}

// Products a second, in 1e9, that independent instructions on registers reach; 0: not known for this set.
double ceiling(const std::string& name) {
  constexpr int loops = 20000;
#define SQB_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#if SQB_X86
#define SQB_RATE(ONE)                                                                                            \
  least(50, [] {                                                                                                           \
    int n = loops;                                                                                                         \
    asm volatile("1:\n" SQB_12(ONE) "dec %0\njnz 1b\n"                                                                     \
                 : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
                   "xmm11", "xmm13", "cc");                                                                                \
  })
#define SQB_AVX512VNNI(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #i "\n"
#define SQB_AVXVNNI(i) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #i "\n"
#define SQB_AVX2(i) "vpmaddwd %%ymm14, %%ymm15, %%ymm13\nvpaddd %%ymm13, %%ymm" #i ", %%ymm" #i "\n"
  if (name == "amx") {
    // Products of whole tiles: sixteen rows by sixteen columns by 64.
    configure_tiles(16, 16);
    const double time = least(50, [] {
      int n = loops;
      asm volatile("1:\ntdpbssd %%tmm6, %%tmm4, %%tmm0\ntdpbssd %%tmm7, %%tmm4, %%tmm1\ntdpbssd %%tmm6, %%tmm5, %%tmm2\n"
                   "tdpbssd %%tmm7, %%tmm5, %%tmm3\ndec %0\njnz 1b\n" : "+r"(n) : : "cc");
    });
    release_tiles();
    return loops * 4.0 * 16 * 16 * 64 / time / 1e9;
  }
  if (name == "avx512vnni") return loops * 12 * 64 / SQB_RATE(SQB_AVX512VNNI) / 1e9;
  if (name == "avxvnni") return loops * 12 * 32 / SQB_RATE(SQB_AVXVNNI) / 1e9;
  if (name == "avx2") return loops * 12 * 16 / SQB_RATE(SQB_AVX2) / 1e9;
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
      const PackedLinear packed(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, kernels.packing, arena);
      const int blocks = s.groups * s.blocks;
      const auto places = static_cast<size_t>(rows) * static_cast<size_t>(blocks);
      const int block_stride = round_up(in / blocks, kBlockMultiple), row_stride = odd_lines(blocks * block_stride);
      AlignedBuffer<int8_t> values(static_cast<size_t>(rows) * static_cast<size_t>(row_stride));
      AlignedBuffer<float> x_scale(places);
      AlignedBuffer<int32_t> zero(places), sum(places), count(places);
      AlignedBuffer<Wide> wide(places * kMostWide);
      const Quantized q{values.data(), x_scale.data(), zero.data(), sum.data(), count.data(), wide.data(), blocks, in / blocks, block_stride, row_stride};
      kernels.quantize(x.data(), in, rows, 0.0f, q);
      const int y_stride = odd_lines(out * 4) / 4;
      AlignedBuffer<float> y(static_cast<size_t>(rows) * static_cast<size_t>(y_stride));
      AlignedBuffer<uint8_t> scratch(linear_scratch(packed.view(), s.groups, rows));
      const double time = least(300, [&] {
        kernels.grouped_linear({&packed.view(), &q, 0, packed.panel_count(), rows, y.data(), y_stride, 0, s.activation, scratch.data()});
      });
      const double speed = static_cast<double>(rows) * out * s.in / time / 1e9;
      std::printf("%-20s %4d rows  %7.1f us  %6.1f GMAC/s", s.name, rows, time * 1e6, speed);
      if (top > 0) std::printf("  %3.0f %% of the ceiling", 100 * speed / top);
      std::printf("\n");
    }
}

// Kernels that keep time and count products.
struct Spent {
  double seconds = 0, products = 0;
};
const Kernels* inner;
std::map<std::string, Spent> spent;

template <class Call>
void timed(const std::string& name, double products, Call&& call) {
  const double start = now();
  call();
  Spent& s = spent[name];
  s.seconds += now() - start;
  s.products += products;
}

const Kernels& timed_kernels(const Kernels& kernels) {
  inner = &kernels;
  static Kernels wrapped;
  wrapped = {kernels.name,
             kernels.packing,
             [](const LinearCall& call) {
               const LinearWeights& w = *call.weights;
               double columns = 0;
               for (int p = call.first_panel; p < call.last_panel; ++p) columns += w.panels[p].columns;
               timed("linear " + std::to_string(w.groups) + " x " + std::to_string(w.in) + " -> " + std::to_string(w.out),
                     columns * w.in * call.rows, [&] { inner->grouped_linear(call); });
             },
             [](const float* x, ptrdiff_t stride, int rows, float floor, const Quantized& out) {
               timed(floor == 0.0f ? "quantize" : "quantize after activation", 0, [&] { inner->quantize(x, stride, rows, floor, out); });
             },
             [](const AttentionCall& call) {
               timed("attention", 2.0 * call.tokens * call.tokens * call.head_size, [&] { inner->attention(call); });
             },
             [](const LayerNormCall& call) { timed("layer norm", 0, [&] { inner->layer_norm(call); }); },
             [](const EmbeddingCall& call) { timed("embedding", 0, [&] { inner->embedding(call); }); }};
  return wrapped;
}

// Rounds until about a second has passed.
int rounds_for(double time) { return std::max(5, static_cast<int>(1.0 / std::max(time, 1e-6))); }

void whole(const std::string& folder, int threads, const Kernels& kernels, const std::vector<std::string>& shapes) {
  std::mt19937 random(1);
  Model model(Artifact::open(folder), kernels, threads);
  std::unique_ptr<Model> watched;
  if (threads == 1) watched = std::make_unique<Model>(Artifact::open(folder), timed_kernels(kernels), 1);
  for (const std::string& shape : shapes) {
    int sequences = 0, length = 0;
    if (std::sscanf(shape.c_str(), "%dx%d", &sequences, &length) != 2 || sequences < 1 || length < 1)
      throw InputError(shape + " is not a shape such as 8x128");
    std::vector<int32_t> lengths(static_cast<size_t>(sequences), length), ids(static_cast<size_t>(sequences * length));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(model.config().vocab_size));
    std::vector<float> logits(static_cast<size_t>(sequences * std::max(model.config().num_labels, length)));
    const Batch batch{ids.data(), nullptr, lengths.data(), sequences};
    const Outputs outputs{logits.data(), nullptr, nullptr, nullptr};
    const auto run = [&] { model.run(batch, outputs); };
    double (*const clock)() = threads == 1 ? now : wall;
    const double time = least(rounds_for(least(1, run, clock)), run, clock);
    std::printf("%s, %s, %d threads: %.3f ms\n", shape.c_str(), kernels.name, threads, time * 1e3);
    if (watched) {
      std::map<std::string, Spent> best;
      for (int i = rounds_for(time); i > 0; --i) {
        spent.clear();
        watched->run(batch, outputs);
        for (const auto& [name, s] : spent)
          if (best.count(name) == 0 || s.seconds < best[name].seconds) best[name] = s;
      }
      for (const auto& [name, s] : best) {
        std::printf("    %-28s %8.3f ms", name.c_str(), s.seconds * 1e3);
        if (s.products > 0) std::printf("  %6.1f GMAC/s", s.products / s.seconds / 1e9);
        std::printf("\n");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool model = argc > 2;
  const int name = model ? 3 : 1;
  const Kernels* kernels = argc > name ? find_kernels(argv[name]) : &best_kernels();
  if (kernels == nullptr) return std::fprintf(stderr, "%s cannot run here\n", argv[name]), 2;
  try {
    if (model)
      whole(argv[1], std::atoi(argv[2]), *kernels,
            argc > 4 ? std::vector<std::string>(argv + 4, argv + argc) : std::vector<std::string>{"1x16", "1x32", "1x128", "8x128", "1x512"});
    else
      products(*kernels);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 2;
  }
}
