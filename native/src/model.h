// An artifact, packed for one instruction set, and the forward pass over ragged batches.
//
// Sequences lie one after the other, without padding, and are joined to groups. A layer is two phases:
//     heads:   for a group and one head: query, key, value, attention -> context
//     tokens:  for a block of tokens: post-attention, residual, norm, feed-forward lane by lane, residual, norm
// Where sequences can be divided among the threads in like shares, a thread takes its own through both; otherwise each phase is
// shared out, and where a thread would have few rows, the second's steps one after the other, by rows or by lanes.
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

// What a masked language model is asked: a score of every token of the vocabulary, at some places.
struct Gaps {
  const int32_t* positions;  // [count]: places in the row of a batch's tokens, in any order
  int count;
  float* logits;  // [count][vocabulary]; minus infinity in rows that only pad the vocabulary
};

class Workspace;
struct Hand;

class Model {
 public:
  // kernels: one of available_kernels(), enabled. threads: at least 1.
  Model(Artifact artifact, const Kernels& kernels, int threads);
  ~Model();

  const Config& config() const { return artifact_.config(); }
  const Kernels& kernels() const { return kernels_; }
  int threads() const { return team_->threads(); }
  bool has_pooler() const { return has_pooler_; }
  bool has_classifier() const { return !classifier_.empty(); }
  bool has_masked_lm() const { return has_masked_lm_; }

  // Any number of threads may call this at once: one uses the team, the others compute alone. So does a process that was
  // forked off.
  // Throws InputError for lengths or ids out of range and for outputs that the model does not have.
  void run(const Batch& batch, const Outputs& outputs);
  // The same for a masked language model. Throws InputError for a position outside the batch, too.
  void run_masked(const Batch& batch, const Gaps& gaps);

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
  // Number of tokens. Throws InputError.
  int64_t check(const Batch& batch) const;
  // Calls done(space, first token, first sequence) for part after part.
  template <class Done>
  void run_parts(const Batch& batch, Team& team, Done&& done);
  void forward(Workspace& space, Team& team);
  void apart(Workspace& space, Member& member);
  void together(Workspace& space, Member& member);
  template <class Work>
  static void share_rows(const Workspace& space, Member& member, Work&& work);
  void embed(Workspace& space, int first, int rows);
  void heads_phase(Workspace& space, Member& member, const Layer& layer, int group_index, int unit, float* context);
  void quantize_piece(Workspace& space, int group_index, int piece, const float* context);
  struct Rows;
  Rows rows_of(Workspace& space, Hand& hand, int first, int count, int place);
  template <class Work>
  void for_few_rows(const Rows& rows, Work&& work);
  void block_phase(Workspace& space, Member& member, const Layer& layer, int first, int count);
  void tokens_phase(Workspace& space, Member& member, const Layer& layer);
  void norm(const Rows& rows, const Norm& norm);
  void post_part(Workspace& space, Member& member, const Rows& rows, const Layer& layer, int part, int parts);
  void attention_norm(const Rows& rows, const Layer& layer);
  // ahead: another lane follows, whose weights can be fetched.
  void feed_forward_lane(Workspace& space, Member& member, const Rows& rows, const Layer& layer, int lane, bool ahead);
  void feed_forward_norm(Workspace& space, const Rows& rows, const Layer& layer);
  void heads_of(Workspace& space, const Outputs& outputs);
  void score_vocabulary(Team& team, std::vector<float>& rows, const Gaps& gaps);
  // The team, where the lock on it is held and its threads are there; else the caller alone.
  Team& team_for(const std::unique_lock<std::mutex>& lock);
  std::unique_ptr<Workspace> borrow_space();
  void return_space(std::unique_ptr<Workspace> space);

  Artifact artifact_;
  const Kernels& kernels_;
  std::unique_ptr<Team> team_;
  Team alone_{1};
  Arena arena_;
  EmbeddingTables tables_{};
  Norm embedding_norm_;
  std::vector<Layer> layers_;
  PackedLinear pooler_;
  bool has_pooler_ = false;
  std::vector<float> classifier_;
  std::vector<float> classifier_bias_;
  bool has_masked_lm_ = false;
  PackedLinear masked_transform_;
  Norm masked_norm_;
  std::vector<float> masked_bias_;
  Activation activation_ = Activation::gelu;
  int units_ = 1;         // heads are taken in this many parts
  int lanes_ = 1;         // independent feed-forward networks
  int context_blocks_ = 1;
  int context_pieces_ = 1;  // whose heads and blocks nobody else has
  std::mutex spaces_mutex_;
  std::vector<std::unique_ptr<Workspace>> spaces_;
};

}  // namespace sqb
