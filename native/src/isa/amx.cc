// Every operation on AMX's int8 tiles with AVX-512 beside them: Intel's servers from Sapphire Rapids on.
#include "kernels.h"
#include "ops/attention/amx.h"
#include "ops/embedding/driver.h"
#include "ops/grouped_linear/amx.h"
#include "ops/layer_norm/driver.h"
#include "ops/quantize/driver.h"

namespace sqb {

extern const Kernels kAmx;
const Kernels kAmx = {"amx",
                      {false, kTileBytes},
                      AmxDriver::linear,
                      quantize_rows,
                      AmxAttention::run,
                      layer_norm_rows,
                      embed_rows};

}  // namespace sqb
