// Every operation on AVX2 with FMA: x86 servers and laptops from 2013 on.
#include "kernels.h"
#include "ops/attention/avx2.h"
#include "ops/attention/driver.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/avx2.h"
#include "ops/grouped_linear/widening.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kAvx2;
const Kernels kAvx2 = {"avx2",
                         {true, 4, true},
                         WideningDriver<Avx2Tile>::linear,
                         quantize_rows,
                         AttentionDriver<Avx2Tile16>::run,
                         layer_norm_rows,
                         embed_rows};

}  // namespace sqb
