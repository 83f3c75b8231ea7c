// Every operation on WebAssembly's 128-bit vectors: every browser in use (Chrome 91, Firefox 89, Safari 16.4 and later).
#include "kernels.h"
#include "ops/attention/driver.h"
#include "ops/attention/wasm.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/wasm.h"
#include "ops/grouped_linear/widening.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kWasm;
const Kernels kWasm = {"wasm",
                       {false, 4, true},
                       WideningDriver<WasmTile>::linear,
                       quantize_rows,
                       AttentionDriver<WasmTile16>::run,
                       layer_norm_rows,
                       embed_rows};

}  // namespace sqb
