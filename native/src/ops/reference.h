// The plain forms of every operation: what the fast ones are tested against, and what runs where no fast one can.
#pragma once

#include "kernels.h"

namespace sqb::reference {

GroupedLinearFn grouped_linear;
QuantizeFn quantize;
AttentionFn attention;
LayerNormFn layer_norm;
EmbeddingFn embedding;

}  // namespace sqb::reference
