// The relaxed kernels of WebAssembly against the reference, bit by bit, on any processor: where all bytes of the weights
// lie within 0..127, the specification leaves nothing open. So weights are negative for the kernel that stores them with
// 128 added, and not negative for the other. On other weights test_ops runs the one that is exact on this machine, if any.
#include "check.h"
#include "kernels.h"
#include "ops/reference.h"

using namespace sqb;

namespace sqb {
extern const Kernels kWasmRelaxedUnsigned;
extern const Kernels kWasmRelaxedSigned;
}  // namespace sqb

namespace {

void test(const Kernels& kernels, std::mt19937& random) {
  struct Shape {
    int groups, in, out, blocks;
  };
  const Shape shapes[] = {{4, 192, 192, 1}, {4, 768, 192, 1}, {1, 768, 768, 4}, {3, 33, 65, 1}, {1, 7, 3, 1}, {2, 34, 17, 2}};
  for (const Shape& s : shapes)
    for (const int rows : {1, 2, 3, 5, 6, 7, 15, 17, 33}) {
      const int out = s.groups * s.out, in = s.groups * s.in, blocks = s.groups * s.blocks;
      std::vector<int8_t> weight = draw_int8(random, static_cast<size_t>(out * s.in));
      for (int8_t& w : weight) w = static_cast<int8_t>(kernels.packing.plus128 ? -1 - (w & 126) : w & 127);
      const std::vector<float> scale(static_cast<size_t>(out), 0.01f), bias = draw(random, static_cast<size_t>(out));
      const std::vector<float> x = draw(random, static_cast<size_t>(rows * in));
      const int stride = round_up(s.in / s.blocks, 16);
      const auto places = static_cast<size_t>(rows * blocks);
      std::vector<int8_t> values(places * static_cast<size_t>(stride));
      std::vector<float> x_scale(places);
      std::vector<int32_t> zero(places), sum(places), wide_count(places);
      std::vector<Wide> wide(places * kMostWide);
      const Quantized q{values.data(), x_scale.data(), zero.data(), sum.data(), wide_count.data(), wide.data(),
                        blocks, s.in / s.blocks, stride, static_cast<ptrdiff_t>(blocks) * stride};
      reference::quantize(x.data(), in, rows, 0.0f, q);
      Arena arena;
      const PackedLinear plain(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, Packing{false}, arena);
      const PackedLinear packed(weight.data(), scale.data(), bias.data(), s.groups, s.in, s.out, s.blocks, kernels.packing, arena);
      std::vector<float> want(static_cast<size_t>(rows * out)), got(want.size());
      AlignedBuffer<uint8_t> scratch(linear_scratch(packed.view(), s.groups, rows));
      reference::grouped_linear({&plain.view(), &q, 0, plain.panel_count(), rows, want.data(), out, 0, Activation::none, nullptr});
      kernels.grouped_linear({&packed.view(), &q, 0, packed.panel_count(), rows, got.data(), out, 0, Activation::none, scratch.data()});
      CHECK(differing("linear", got, want) == 0, "%s %dx%d->%d blocks %d rows %d", kernels.name, s.groups, s.in, s.out, s.blocks, rows);
    }
}

}  // namespace

int main() {
  std::mt19937 random(1);
  test(kWasmRelaxedUnsigned, random);
  test(kWasmRelaxedSigned, random);
  return finish();
}
