// Every operation on NEON with int8 matrix products (armv8.6-a+i8mm): Cortex-A510, A710, X2 and later, Apple from M2 on, Graviton 3.
#include "kernels.h"
#include "ops/attention/driver.h"
#include "ops/attention/neon.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/driver.h"
#include "ops/grouped_linear/neoni8mm.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kNeonI8mm;
const Kernels kNeonI8mm = {"neoni8mm",
                         {false},
                         Driver<NeonI8mmTile>::linear,
                         quantize_rows,
                         AttentionDriver<NeonTile16>::run,
                         layer_norm_rows,
                         embed_rows};

}  // namespace sqb
