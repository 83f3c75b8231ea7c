// Every operation with WebAssembly's relaxed instructions, where their results are exact on the processor underneath.
#include "kernels.h"
#include "ops/attention/driver.h"
#include "ops/attention/wasm.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/driver.h"
#include "ops/grouped_linear/wasm_relaxed.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kWasmRelaxedUnsigned;
extern const Kernels kWasmRelaxedSigned;

namespace {

constexpr Kernels relaxed(const char* name, bool plus128) {
  return {name,
          {plus128},
          Driver<WasmRelaxedTile>::linear,
          quantize_rows,
          AttentionDriver<WasmTile16>::run,
          layer_norm_rows,
          embed_rows};
}

// Whether sums are those of signed `a` by `b` read as the type B, at the ends of both ranges and between. The choice is the
// machine's and the same for all operands, so a few tell. Volatile: the compiler must not compute them.
template <class B>
bool dot_is_exact() {
  const int ends[] = {-128, -127, -1, 0, 1, 64, 127};
  const int bytes[] = {0, 1, 63, 127, 128, 129, 200, 254, 255};
  for (const int x : ends)
    for (const int w : bytes) {
      volatile int8_t a = static_cast<int8_t>(x);
      volatile uint8_t b = static_cast<uint8_t>(w);
      const v128_t sum =
          wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_i8x16_splat(a), wasm_u8x16_splat(b), wasm_i32x4_const_splat(-7));
      const int32_t want = 4 * x * static_cast<int32_t>(static_cast<B>(w)) - 7;
      if (!wasm_i8x16_all_true(wasm_i32x4_eq(sum, wasm_i32x4_splat(want)))) return false;
    }
  return true;
}

}  // namespace

const Kernels kWasmRelaxedUnsigned = relaxed("wasm-relaxed-unsigned", true);
const Kernels kWasmRelaxedSigned = relaxed("wasm-relaxed-signed", false);

// Null: none; the ordinary instructions are to be used.
const Kernels* relaxed_kernels();
const Kernels* relaxed_kernels() {
  if (dot_is_exact<uint8_t>()) return &kWasmRelaxedUnsigned;
  if (dot_is_exact<int8_t>()) return &kWasmRelaxedSigned;
  return nullptr;
}

}  // namespace sqb
