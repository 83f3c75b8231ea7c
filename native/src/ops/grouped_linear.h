// Grouped position-wise product on int8: the layer that SqueezeBERT is made of.
//
//     y[n, o] = act( w_scale[o] * sum_b x_scale[n, b] * (float(acc[n, o, b]) + zero[n, b] * w_sum[o, b]) + bias[o] )
//     acc[n, o, b] = sum over channels k of block b:  q[n, k] * w[o, k]                    exact, int32
//
// b runs over the quantisation blocks inside o's group: one where blocks equal groups, more where a dense layer reads
// lanes (post-attention). fp32 order: t = fma(zero, w_sum, acc); y = t * x_scale, then fma(t, x_scale, y) for each further
// block; fma(y, w_scale, bias); activation. Every instruction set gives the same bits.
//
// Packing. Output channels of a group are cut into panels of up to 64; a panel holds, for each block and each four
// channels k, four bytes per output channel:
//     [panel][block][k / 4][vectors * 16][4]       missing channels are zero weights
// Kernels for unsigned-by-signed instructions (vpdpbusd) store w + 128 and start sums at -128 * sum(q); the others
// store w. A set may ask for blocks of more than a multiple of four channels: zero weights meet the zeros between
// block_size and block_stride of the activations (ops/quantize.h). No sum leaves int32: |q| <= 127 and |w| <= 127 over at most 65,536 channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.h"
#include "ops/quantize.h"

namespace sqb {

enum class Activation { none, gelu, gelu_new, relu, silu, tanh };

constexpr int kPanelVectors = 4;  // at most 64 output channels to a panel

struct Panel {
  int group;
  int column;     // first output channel
  int columns;    // valid ones
  int vectors;    // of 16
  size_t offset;  // into data
};

// How an instruction set wants its weights.
struct Packing {
  bool plus128;        // with 128 added
  int multiple = 4;    // a block's channels are padded with zero weights to a multiple of this: 4 .. kBlockMultiple
  bool widens = false;  // kernels need linear_scratch
};

// What kernels read: plain pointers, since a kernel's file is compiled for its own instruction set and must not emit
// shared inline functions.
struct LinearWeights {
  int groups = 1;
  int in = 0;            // channels of one group
  int out = 0;           // of one group
  int blocks = 1;        // quantisation blocks of one group
  int block_padded = 0;  // channels of a block, up to a multiple of Packing::multiple
  bool plus128 = false;
  bool widens = false;
  const Panel* panels = nullptr;  // in order of output channels
  const uint8_t* data = nullptr;
  const float* scale = nullptr;  // panel p's start at p * 64
  const float* bias = nullptr;
  const float* sums = nullptr;  // [panel][block][64]: sums of w
};

class PackedLinear {
 public:
  PackedLinear() = default;
  // The packed weights lie in the arena, which must outlive this.
  // weight[groups * out][in] (row-major int8), scale and bias [groups * out]; panel_vectors: 1..4.
  PackedLinear(const int8_t* weight, const float* scale, const float* bias, int groups, int in, int out, int blocks,
               Packing packing, Arena& arena, int panel_vectors = kPanelVectors);

  const LinearWeights& view() const { return view_; }
  int panel_count() const { return static_cast<int>(panels_.size()); }
  // The panel that starts with this output channel.
  int panel_at(int column) const;
  // Where that panel's weights begin.
  const uint8_t* weights_of(int panel) const { return view_.data + panels_[static_cast<size_t>(panel)].offset; }

 private:
  LinearWeights view_;
  std::vector<Panel> panels_;
  AlignedBuffer<float> scale_;
  AlignedBuffer<float> bias_;
  AlignedBuffer<float> sums_;
};

// Rows x against panels [first, last). Output channel `column` goes to y + row * y_stride + column - y_column.
struct LinearCall {
  const LinearWeights* weights;
  const Quantized* x;
  int first_panel;
  int last_panel;
  int rows;
  float* y;
  ptrdiff_t y_stride;
  int y_column;
  Activation activation;
  uint8_t* scratch;                  // linear_scratch bytes, 64-byte aligned
  int x_first_group = 0;             // group that x's first blocks belong to
  const uint8_t* next = nullptr;     // weights wanted after these; fetched into the cache meanwhile
};
using GroupedLinearFn = void(const LinearCall& call);

// Bytes that a call over the panels of `groups` groups needs, at most, 0 where kernels widen nothing: they neither allocate
// nor know their thread.
size_t linear_scratch(const LinearWeights& weights, int groups, int rows);

}  // namespace sqb
