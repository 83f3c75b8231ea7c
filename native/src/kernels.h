// The operations of one instruction set, and the choice among those this machine has.
#pragma once

#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/grouped_linear.h"
#include "ops/layer_norm.h"
#include "ops/quantize.h"

namespace sqb {

struct Kernels {
  const char* name;
  Packing packing;
  GroupedLinearFn* grouped_linear;
  QuantizeFn* quantize;
  AttentionFn* attention;
  LayerNormFn* layer_norm;
  EmbeddingFn* embedding;
};

// Those that can run here, best first; the last is the reference.
const std::vector<const Kernels*>& available_kernels();

// By name; null: not known, or not runnable here.
const Kernels* find_kernels(const std::string& name);

}  // namespace sqb
