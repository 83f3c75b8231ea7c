// Every operation on 256-bit VNNI: Intel client processors from Alder Lake on, AMD from Zen 5 on.
#include "kernels.h"
#include "ops/attention/avx2.h"
#include "ops/attention/driver.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/avxvnni.h"
#include "ops/grouped_linear/driver.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kAvxVnni;
const Kernels kAvxVnni = {"avxvnni",
                         {true},
                         Driver<AvxVnniTile>::linear,
                         quantize_rows,
                         AttentionDriver<Avx2Tile16>::run,
                         layer_norm_rows,
                         embed_rows};

}  // namespace sqb
