// Every operation on AVX-512 with VNNI: Intel from Ice Lake and Cascade Lake on, AMD from Zen 4 on.
#include "kernels.h"
#include "ops/attention/avx512vnni.h"
#include "ops/attention/driver.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/avx512vnni.h"
#include "ops/grouped_linear/driver.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kAvx512Vnni;
const Kernels kAvx512Vnni = {"avx512vnni",
                             {true},
                             Driver<Avx512VnniTile>::linear,
                             quantize_rows,
                             AttentionDriver<Avx512VnniTile16>::run,
                             layer_norm_rows,
                             embed_rows};

}  // namespace sqb
