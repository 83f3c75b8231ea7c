// An artifact, packed for one instruction set, and the forward pass over ragged batches.
//
// All sequences of a batch are one run of tokens. A layer is two phases:
//     heads:   for a group of sequences and one head: query, key, value, attention -> context
//     tokens:  for a block of tokens: post-attention, residual, norm, feed-forward lane by lane, residual, norm
// Nothing that a sequence's result depends on reaches beyond the sequence, and every sum has one order, so the result has the
// same bits alone, in any batch and with any number of threads.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "artifact.h"
#include "kernels.h"
#include "threads.h"

namespace sqb {

struct Batch {
  const int32_t* ids;      // [tokens], sequence after sequence
  const int32_t* types;    // [tokens] or null
  const int32_t* lengths;  // [sequences]
  int sequences;
};

// Null: not wanted.
struct Outputs {
  float* logits = nullptr;  // [sequences][labels]; token classification: [tokens][labels]
  float* pooled = nullptr;  // [sequences][channels]: tanh of a dense layer on the first token
  float* mean = nullptr;    // [sequences][channels]: mean of the hidden states
  float* hidden = nullptr;  // [tokens][channels]
};

class Workspace;

class Model {
 public:
  // kernels: one of available_kernels(). threads: at least 1.
  Model(Artifact artifact, const Kernels& kernels, int threads);
  ~Model();

  const Config& config() const { return artifact_.config(); }
  const Kernels& kernels() const { return kernels_; }
  int threads() const { return team_.threads(); }
  bool has_pooler() const { return has_pooler_; }
  bool has_classifier() const { return !classifier_.empty(); }

  // Any number of threads may call this at once: one uses the team, the others compute alone.
  // Throws InputError for lengths or ids out of range and for outputs that the model does not have.
  void run(const Batch& batch, const Outputs& outputs);

 private:
  struct Norm {
    std::vector<float> weight, bias;
  };
  struct Layer {
    PackedLinear query, key, value, post, intermediate, output;
    Norm attention_norm, feed_forward_norm;
  };
  friend class Workspace;

  PackedLinear load_linear(const std::string& name, int groups, int in, int out, int blocks, bool with_bias = true,
                           int panel_vectors = kPanelVectors);
  Norm load_norm(const std::string& name) const;
  void check(const Batch& batch, const Outputs& outputs) const;
  void forward(Workspace& space, Team& team, const Batch& part, const Outputs& outputs);
  void heads_phase(Workspace& space, Member& member, const Layer& layer, int item);
  void tokens_phase(Workspace& space, Member& member, const Layer& layer, int block, bool last);
  void heads_of(Workspace& space, const Outputs& outputs);
  std::unique_ptr<Workspace> borrow_space();
  void return_space(std::unique_ptr<Workspace> space);

  Artifact artifact_;
  const Kernels& kernels_;
  Team team_;
  Team alone_{1};
  Arena arena_;
  EmbeddingTables tables_{};
  Norm embedding_norm_;
  std::vector<Layer> layers_;
  PackedLinear pooler_;
  bool has_pooler_ = false;
  std::vector<float> classifier_;
  std::vector<float> classifier_bias_;
  Activation activation_ = Activation::gelu;
  int units_ = 1;         // heads are taken in this many parts
  int lanes_ = 1;         // independent feed-forward networks
  int context_blocks_ = 1;
  std::mutex spaces_mutex_;
  std::vector<std::unique_ptr<Workspace>> spaces_;
};

}  // namespace sqb
