// Least value of an activation's output, negated: what quantisation may count on (see ops/quantize.h).
#pragma once

#include "ops/grouped_linear.h"

namespace sqb {

constexpr float activation_floor(Activation activation) {
  return activation == Activation::gelu || activation == Activation::gelu_new ? 0.1701f
         : activation == Activation::silu                                      ? 0.2785f
                                                                               : 0.0f;
}

}  // namespace sqb
