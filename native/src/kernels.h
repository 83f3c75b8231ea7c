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

// Those that can run here, best first; the last is the reference. enable() comes before their use.
const std::vector<const Kernels*>& available_kernels();

// Asks the system for what a set needs; false: it refuses. AMX: its tiles, for all threads of the process and for good,
// which Linux refuses where a thread has a stack for signals that is too small to hold them, and from then on refuses such
// stacks.
bool enable(const Kernels& kernels);

// The best that can run here, enabled.
const Kernels& best_kernels();

// By name, enabled; null: not known, not runnable here, or refused.
const Kernels* find_kernels(const std::string& name);

}  // namespace sqb
