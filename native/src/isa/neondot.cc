// Every operation on NEON with dot products (armv8.2-a+dotprod): phones from 2018 on (Cortex-A55, A76), Apple from A13 on, Graviton 2.
#include "kernels.h"
#include "ops/attention/driver.h"
#include "ops/attention/neon.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/driver.h"
#include "ops/grouped_linear/neondot.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kNeonDot;
const Kernels kNeonDot = {"neondot",
                         {false},
                         Driver<NeonDotTile>::linear,
                         quantize_rows,
                         AttentionDriver<NeonTile16>::run,
                         layer_norm_rows,
                         embed_rows};

}  // namespace sqb
