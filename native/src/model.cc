#include "model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/activation_floor.h"

namespace sqb {

namespace {

constexpr int kMostPartTokens = 1024;   // a pass over more would leave the caches
constexpr int kGroupTokens = 128;       // sequences are joined up to this many tokens for query, key and value
constexpr int kMostBlockTokens = 128;   // rows whose feed-forward activations stay in a megabyte of L2
constexpr int kLeastBlockTokens = 6;
constexpr int kLeastRows = 48;          // of a thread; with fewer, reading every weight costs more than meeting often
constexpr int kRunTokens = 256;         // of a run, about, where there are so many tokens
constexpr double kMostUneven = 1.1;     // times the mean: what a thread's runs may cost; otherwise all work is divided
constexpr double kAttentionTokens = 0.6;  // for each channel: length at which attention costs as much as all else
constexpr int kFewRows = 4;             // whose norms and quantisation take turns in L1
constexpr int kVocabularyBlock = 256;   // rows of the word embedding that a thread scores at a time

Activation activation_named(const std::string& name, const std::string& where) {
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new") return Activation::gelu_new;
  if (name == "relu") return Activation::relu;
  if (name == "silu") return Activation::silu;
  throw InputError(where + ": hidden_act " + name + " is unknown");
}

// A Quantized with its memory.
class QuantizedBuffer {
 public:
  QuantizedBuffer() = default;
  void resize(int rows, int blocks, int block_size) {
    const size_t places = static_cast<size_t>(rows) * blocks;
    view.blocks = blocks;
    view.block_size = block_size;
    view.block_stride = round_up(block_size, kBlockMultiple);
    view.row_stride = odd_lines(blocks * view.block_stride);
    const size_t bytes = static_cast<size_t>(rows) * view.row_stride;
    if (values_.size() < bytes) values_ = AlignedBuffer<int8_t>(bytes);
    if (scale_.size() < places) {
      scale_ = AlignedBuffer<float>(places);
      zero_ = AlignedBuffer<int32_t>(places);
      sum_ = AlignedBuffer<int32_t>(places);
      wide_count_ = AlignedBuffer<int32_t>(places);
      wide_ = AlignedBuffer<Wide>(places * kMostWide);
    }
    view.values = values_.data();
    view.scale = scale_.data();
    view.zero = zero_.data();
    view.sum = sum_.data();
    view.wide_count = wide_count_.data();
    view.wide = wide_.data();
  }
  Quantized view;

 private:
  AlignedBuffer<int8_t> values_;
  AlignedBuffer<float> scale_;
  AlignedBuffer<int32_t> zero_, sum_, wide_count_;
  AlignedBuffer<Wide> wide_;
};

// Quantises block `block` of rows that lie in `out` beside other blocks. x: the block's channels, [rows][x_stride].
void quantize_block(const Kernels& kernels, const float* x, ptrdiff_t x_stride, int rows, const Quantized& out, int block) {
  constexpr int kRows = 32;
  float scale[kRows];
  int32_t zero[kRows], sum[kRows], wide_count[kRows];
  Wide wide[kRows * kMostWide];
  for (int first = 0; first < rows; first += kRows) {
    const int count = std::min(kRows, rows - first);
    const Quantized all = out.from_row(first);
    const Quantized one = {all.values + static_cast<ptrdiff_t>(block) * out.block_stride, scale, zero, sum, wide_count, wide, 1,
                           out.block_size, out.block_stride, out.row_stride};
    kernels.quantize(x + first * x_stride, x_stride, count, 0.0f, one);
    for (int r = 0; r < count; ++r) {
      const int place = r * out.blocks + block;
      all.scale[place] = scale[r];
      all.zero[place] = zero[r];
      all.sum[place] = sum[r];
      all.wide_count[place] = wide_count[r];
      std::copy(wide + r * kMostWide, wide + r * kMostWide + wide_count[r], all.wide + static_cast<ptrdiff_t>(place) * kMostWide);
    }
  }
}

// In one order whatever the compiler: sixteen partial sums, then halves.
float dot(const float* x, const int8_t* w, int count) {
  float lanes[16] = {};
  int i = 0;
  for (; i + 16 <= count; i += 16)
    for (int lane = 0; lane < 16; ++lane) lanes[lane] += x[i + lane] * static_cast<float>(w[i + lane]);
  for (; i < count; ++i) lanes[i % 16] += x[i] * static_cast<float>(w[i]);
  for (int half = 8; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// Floats from one row of scratch to the next.
int row_stride(int channels) { return odd_lines(channels * 4) / 4; }

template <class T>
void grow(AlignedBuffer<T>& buffer, size_t count) {
  if (buffer.size() < count) buffer = AlignedBuffer<T>(count);
}

}  // namespace

// What the steps over a block of tokens hand to one another.
struct Hand {
  AlignedBuffer<float> y;
  QuantizedBuffer intermediate_in;
  void resize(const Config& c, int rows) {
    grow(y, static_cast<size_t>(rows) * row_stride(c.hidden_size));
    intermediate_in.resize(rows, c.intermediate_groups, c.hidden_size / c.intermediate_groups);
  }
};

// Memory of one pass, kept for the next, and how its work is divided.
//
// Sequences are joined to groups, which attention takes at a time. Apart: where sequences can be divided into runs of like cost,
// a thread takes a run through a layer alone; what it wrote is still in its caches. Together: heads of groups, then blocks of
// rows, or, where a thread would have few rows for all the weights, `parts` of a block's output channels and of its lanes.
class Workspace {
 public:
  struct Group {
    int first_sequence, last_sequence;
    int first_token, tokens;
  };
  struct Run {
    int first_group, last_group;
    int first_token, tokens;
  };
  struct Thread {
    AlignedBuffer<float> qkv, context, wide;  // context: of a group, apart
    AlignedBuffer<uint8_t> attention, linear;
    Hand hand;
    QuantizedBuffer intermediate_out;
  };

  Batch batch{};
  int tokens = 0;
  std::vector<Run> runs;  // none: together
  int blocks = 0;         // together, of rows
  int parts = 1;
  bool context_late = false;  // together: quantised by rows after all heads, since fewer threads than there are could do it before
  std::vector<int> starts;
  std::vector<int32_t> positions;
  std::vector<Group> groups;
  AlignedBuffer<float> x;
  AlignedBuffer<float> float_context;  // together
  QuantizedBuffer context;
  QuantizedBuffer inputs[3];  // for query, key and value; the first of equal group counts is used
  int input_of[3] = {0, 0, 0};
  std::vector<Thread> threads;
  Hand hand;  // of all tokens, where they have parts
  std::unique_ptr<std::atomic<int>[]> heads_done;  // together, of each group and piece of the context

  int block_start(int block) const { return part_of(tokens, block, blocks); }
  static int part_of(int count, int part, int parts) { return static_cast<int>(static_cast<int64_t>(count) * part / parts); }
  static int blocks_of(int rows) { return (rows + kMostBlockTokens - 1) / kMostBlockTokens; }

  void prepare(const Model& model, const Batch& part, int thread_count) {
    const Config& c = model.config();
    batch = part;
    starts.assign(1, 0);
    positions.clear();
    for (int s = 0; s < part.sequences; ++s) {
      for (int t = 0; t < part.lengths[s]; ++t) positions.push_back(t);
      starts.push_back(starts.back() + part.lengths[s]);
    }
    tokens = starts.back();
    join(first_of_runs(thread_count, kAttentionTokens * c.hidden_size));
    int largest_group = 0, largest_run = 0, longest = 0;
    for (const Group& group : groups) largest_group = std::max(largest_group, group.tokens);
    for (const Run& run : runs) largest_run = std::max(largest_run, run.tokens);
    for (int s = 0; s < part.sequences; ++s) longest = std::max(longest, part.lengths[s]);

    parts = thread_count == 1 || tokens >= thread_count * kLeastRows ? 1 : model.lanes_;
    // So that blocks times parts are shared out evenly.
    const int wanted = round_up(blocks_of(tokens), thread_count / std::gcd(thread_count, parts));
    blocks = std::max(1, std::min(wanted, tokens / kLeastBlockTokens));
    const size_t pieces = groups.size() * static_cast<size_t>(model.context_pieces_);
    context_late = pieces < static_cast<size_t>(thread_count);
    if (pieces > pieces_) {
      heads_done.reset(new std::atomic<int>[pieces]());
      pieces_ = pieces;
    }

    const size_t size = static_cast<size_t>(tokens) * c.hidden_size;
    grow(x, size);
    if (runs.empty()) grow(float_context, size);
    context.resize(tokens, model.context_blocks_, c.hidden_size / model.context_blocks_);
    const int counts[3] = {c.q_groups, c.k_groups, c.v_groups};
    for (int i = 0; i < 3; ++i) {
      input_of[i] = i;
      for (int j = i - 1; j >= 0; --j)
        if (counts[j] == counts[i]) input_of[i] = j;
      if (input_of[i] == i) inputs[i].resize(tokens, counts[i], c.hidden_size / counts[i]);
    }
    if (static_cast<int>(threads.size()) < thread_count) threads.resize(static_cast<size_t>(thread_count));
    const int rows = runs.empty() ? tokens / blocks + 1 : std::min(largest_run, kMostBlockTokens);
    const int head_size = c.hidden_size / c.heads;
    size_t linear = 0;
    const auto needs = [&](const PackedLinear& layer, int shares, int count) {
      linear = std::max(linear, linear_scratch(layer.view(), std::max(1, layer.view().groups / shares), count));
    };
    for (const Model::Layer& layer : model.layers_) {
      for (const PackedLinear* each : {&layer.query, &layer.key, &layer.value}) needs(*each, model.units_, largest_group);
      needs(layer.post, 1, rows);
      needs(layer.intermediate, model.lanes_, rows);
      needs(layer.output, model.lanes_, rows);
    }
    if (parts > 1) hand.resize(c, tokens);
    for (int i = 0; i < thread_count; ++i) {
      Thread& t = threads[static_cast<size_t>(i)];
      grow(t.qkv, static_cast<size_t>(3) * largest_group * (c.hidden_size / model.units_));
      if (!runs.empty()) grow(t.context, static_cast<size_t>(largest_group) * c.hidden_size);
      grow(t.attention, attention_scratch(longest, head_size));
      grow(t.linear, linear);
      grow(t.wide, static_cast<size_t>(rows) * row_stride(c.intermediate_size / model.lanes_));
      if (parts == 1) t.hand.resize(c, rows);
      t.intermediate_out.resize(rows, c.output_groups / model.lanes_, c.intermediate_size / c.output_groups);
    }
  }

 private:
  // The first sequence of each run, as many for each thread; none where threads would not have like shares.
  std::vector<int> first_of_runs(int thread_count, double attention_tokens) const {
    if (thread_count == 1 || tokens < thread_count * kLeastRows) return {};
    for (int each = std::max(1, tokens / (thread_count * kRunTokens)); each > 0; --each) {
      std::vector<int> first = divide(thread_count, each, attention_tokens);
      if (!first.empty()) return first;
    }
    return {};
  }

  std::vector<int> divide(int thread_count, int each, double attention_tokens) const {
    const int count = thread_count * each;
    const auto cost_of = [&](int s) { return batch.lengths[s] * (attention_tokens + batch.lengths[s]); };
    double total = 0, before = 0;
    for (int s = 0; s < batch.sequences; ++s) total += cost_of(s);
    std::vector<int> first;
    std::vector<double> costs(static_cast<size_t>(thread_count));
    for (int s = 0; s < batch.sequences; ++s) {
      // The run that has the middle of the sequence.
      const double cost = cost_of(s);
      const auto run = std::min(count - 1, static_cast<int>((before + cost / 2) / total * count));
      before += cost;
      const int so_far = static_cast<int>(first.size());
      if (run > so_far) return {};  // so_far has no sequence
      if (run == so_far) first.push_back(s);
      double& share = costs[static_cast<size_t>(run / each)];
      share += cost;
      if (share * thread_count > kMostUneven * total) return {};
    }
    return static_cast<int>(first.size()) == count ? first : std::vector<int>();
  }

  void join(const std::vector<int>& first_of_runs) {
    groups.clear();
    runs.clear();
    for (int s = 0; s < batch.sequences; ++s) {
      const int start = starts[static_cast<size_t>(s)], length = batch.lengths[s];
      const bool begins_run = runs.size() < first_of_runs.size() && first_of_runs[runs.size()] == s;
      if (groups.empty() || begins_run || groups.back().tokens + length > kGroupTokens) groups.push_back({s, s, start, 0});
      groups.back().last_sequence = s + 1;
      groups.back().tokens += length;
      const int count = static_cast<int>(groups.size());
      if (begins_run) runs.push_back({count - 1, count, start, 0});
      if (runs.empty()) continue;
      runs.back().last_group = count;
      runs.back().tokens += length;
    }
  }

  size_t pieces_ = 0;
};

Model::Model(Artifact artifact, const Kernels& kernels, int threads)
    : artifact_(std::move(artifact)), kernels_(kernels), team_(std::make_unique<Team>(threads)) {
  const Config& c = config();
  const int head_size = c.hidden_size / c.heads;
  activation_ = activation_named(c.activation, "config.json");
  // A head can be taken alone where its channels lie inside one group and begin a panel.
  const bool whole_heads = c.heads % c.q_groups == 0 && c.heads % c.k_groups == 0 && c.heads % c.v_groups == 0;
  const bool panels_fit = head_size % 64 == 0 || (head_size % 16 == 0 && head_size < 64);
  units_ = whole_heads && panels_fit ? c.heads : 1;
  const int head_vectors = units_ > 1 && head_size < 64 ? head_size / 16 : kPanelVectors;
  lanes_ = std::gcd(c.intermediate_groups, c.output_groups);
  // Lanes of the context are those of the values that it was made from.
  context_blocks_ = c.v_groups % c.post_groups == 0 ? c.v_groups : c.post_groups;
  context_pieces_ = std::gcd(units_, context_blocks_);

  tables_.channels = c.hidden_size;
  tables_.word = artifact_.int8("embeddings.word.weight", {c.vocab_size, c.hidden_size});
  tables_.word_scale = artifact_.scale("embeddings.word.scale", c.vocab_size);
  tables_.position = artifact_.int8("embeddings.position.weight", {c.max_positions, c.hidden_size});
  tables_.position_scale = artifact_.scale("embeddings.position.scale", c.max_positions);
  tables_.type = artifact_.fp32("embeddings.token_type.weight", {c.type_vocab_size, c.hidden_size});
  embedding_norm_ = load_norm("embeddings.norm");
  for (int n = 0; n < c.layers; ++n) {
    const std::string name = "layers." + std::to_string(n) + ".";
    Layer layer;
    layer.query = load_linear(name + "attention.query", c.q_groups, c.hidden_size, c.hidden_size, c.q_groups, true, head_vectors);
    // A key's bias adds the same to every score of a query, which softmax does not see.
    layer.key = load_linear(name + "attention.key", c.k_groups, c.hidden_size, c.hidden_size, c.k_groups, false, head_vectors);
    layer.value = load_linear(name + "attention.value", c.v_groups, c.hidden_size, c.hidden_size, c.v_groups, true, head_vectors);
    layer.post = load_linear(name + "attention.output", c.post_groups, c.hidden_size, c.hidden_size, context_blocks_);
    layer.intermediate = load_linear(name + "feed_forward.intermediate", c.intermediate_groups, c.hidden_size,
                                     c.intermediate_size, c.intermediate_groups);
    layer.output =
        load_linear(name + "feed_forward.output", c.output_groups, c.intermediate_size, c.hidden_size, c.output_groups);
    layer.attention_norm = load_norm(name + "attention_norm");
    layer.feed_forward_norm = load_norm(name + "feed_forward_norm");
    layers_.push_back(std::move(layer));
  }
  has_pooler_ = c.head == "sequence_classification" || artifact_.has("pooler.dense.weight");
  if (has_pooler_) pooler_ = load_linear("pooler.dense", 1, c.hidden_size, c.hidden_size, 1);
  if (c.head == "sequence_classification" || c.head == "token_classification") {
    const float* weight = artifact_.fp32("classifier.weight", {c.num_labels, c.hidden_size});
    const float* bias = artifact_.fp32("classifier.bias", {c.num_labels});
    classifier_.assign(weight, weight + static_cast<size_t>(c.num_labels) * c.hidden_size);
    classifier_bias_.assign(bias, bias + c.num_labels);
  }
  has_masked_lm_ = c.head == "masked_lm";
  if (has_masked_lm_) {
    masked_transform_ = load_linear("mlm.transform", 1, c.hidden_size, c.hidden_size, 1);
    masked_norm_ = load_norm("mlm.norm");
    const float* bias = artifact_.fp32("mlm.bias", {c.vocab_size});
    masked_bias_.assign(bias, bias + c.vocab_size);
  }
  artifact_.forget();
}

Model::~Model() {
  if (!team_->here()) static_cast<void>(team_.release());  // see Team::here
}

Team& Model::team_for(const std::unique_lock<std::mutex>& lock) {
  return lock.owns_lock() && team_->here() ? *team_ : alone_;
}

PackedLinear Model::load_linear(const std::string& name, int groups, int in, int out, int blocks, bool with_bias,
                                int panel_vectors) {
  const int8_t* weight = artifact_.int8(name + ".weight", {out, in / groups});
  const float* scale = artifact_.scale(name + ".scale", out);
  const float* bias = artifact_.fp32(name + ".bias", {out});
  const std::vector<float> none(static_cast<size_t>(out));
  return PackedLinear(weight, scale, with_bias ? bias : none.data(), groups, in / groups, out / groups, blocks / groups,
                      kernels_.packing, arena_, panel_vectors);
}

Model::Norm Model::load_norm(const std::string& name) const {
  const float* weight = artifact_.fp32(name + ".weight", {config().hidden_size});
  const float* bias = artifact_.fp32(name + ".bias", {config().hidden_size});
  return {{weight, weight + config().hidden_size}, {bias, bias + config().hidden_size}};
}

int64_t Model::check(const Batch& batch) const {
  const Config& c = config();
  if (batch.sequences < 0) throw InputError("a batch has " + std::to_string(batch.sequences) + " sequences; give 0 or more");
  int64_t at = 0;
  for (int s = 0; s < batch.sequences; ++s) {
    const int length = batch.lengths[s];
    if (length < 1 || length > c.max_positions)
      throw InputError("sequence " + std::to_string(s) + " has " + std::to_string(length) + " tokens; the model takes 1 to " +
                       std::to_string(c.max_positions));
    for (int t = 0; t < length; ++t, ++at) {
      if (batch.ids[at] < 0 || batch.ids[at] >= c.vocab_size)
        throw InputError("sequence " + std::to_string(s) + ", token " + std::to_string(t) + ": id " +
                         std::to_string(batch.ids[at]) + " is outside the vocabulary of " + std::to_string(c.vocab_size));
      if (batch.types && (batch.types[at] < 0 || batch.types[at] >= c.type_vocab_size))
        throw InputError("sequence " + std::to_string(s) + ", token " + std::to_string(t) + ": segment " +
                         std::to_string(batch.types[at]) + " is outside 0.." + std::to_string(c.type_vocab_size - 1));
    }
  }
  return at;
}

template <class Done>
void Model::run_parts(const Batch& batch, Team& team, Done&& done) {
  std::unique_ptr<Workspace> space = borrow_space();
  int64_t first_token = 0;
  for (int first = 0; first < batch.sequences;) {
    int last = first, tokens = 0;
    do tokens += batch.lengths[last++];
    while (last < batch.sequences && tokens + batch.lengths[last] <= kMostPartTokens);
    Batch part = batch;
    part.lengths += first;
    part.sequences = last - first;
    part.ids += first_token;
    if (part.types) part.types += first_token;
    space->prepare(*this, part, team.threads());
    forward(*space, team);
    done(*space, first_token, first);
    first = last;
    first_token += tokens;
  }
  return_space(std::move(space));
}

void Model::run(const Batch& batch, const Outputs& outputs) {
  const Config& c = config();
  if (outputs.logits && !has_classifier()) throw InputError("the model has no classifier (its head is " + c.head + ")");
  if (outputs.pooled && !has_pooler_) throw InputError("the model has no pooler (its head is " + c.head + ")");
  check(batch);
  std::unique_lock<std::mutex> lock(team_->busy(), std::try_to_lock);
  run_parts(batch, team_for(lock), [&](Workspace& space, int64_t first_token, int64_t first) {
    Outputs out = outputs;
    if (out.logits) out.logits += (c.head == "token_classification" ? first_token : first) * c.num_labels;
    if (out.pooled) out.pooled += first * c.hidden_size;
    if (out.mean) out.mean += first * c.hidden_size;
    if (out.hidden) out.hidden += first_token * c.hidden_size;
    heads_of(space, out);
  });
}

void Model::run_masked(const Batch& batch, const Gaps& gaps) {
  const Config& c = config();
  if (!has_masked_lm_) throw InputError("the model has no masked language model (its head is " + c.head + ")");
  const int64_t tokens = check(batch);
  if (gaps.count < 0) throw InputError(std::to_string(gaps.count) + " positions; give 0 or more");
  for (int i = 0; i < gaps.count; ++i)
    if (gaps.positions[i] < 0 || gaps.positions[i] >= tokens)
      throw InputError("position " + std::to_string(gaps.positions[i]) + " is outside the batch of " + std::to_string(tokens) +
                       " tokens");
  const size_t channels = static_cast<size_t>(c.hidden_size);
  std::vector<float> rows(static_cast<size_t>(gaps.count) * channels);
  std::unique_lock<std::mutex> lock(team_->busy(), std::try_to_lock);
  Team& team = team_for(lock);
  run_parts(batch, team, [&](Workspace& space, int64_t first_token, int64_t) {
    for (int i = 0; i < gaps.count; ++i) {
      const int64_t row = gaps.positions[i] - first_token;
      if (row >= 0 && row < space.tokens)
        std::memcpy(rows.data() + static_cast<size_t>(i) * channels, space.x.data() + static_cast<size_t>(row) * channels,
                    sizeof(float) * channels);
    }
  });
  if (gaps.count > 0) score_vocabulary(team, rows, gaps);
}

// Nobody waits for the spaces: where the process is forked while a thread holds their lock, it is never given back.
std::unique_ptr<Workspace> Model::borrow_space() {
  const std::unique_lock<std::mutex> lock(spaces_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || spaces_.empty()) return std::make_unique<Workspace>();
  std::unique_ptr<Workspace> space = std::move(spaces_.back());
  spaces_.pop_back();
  return space;
}

void Model::return_space(std::unique_ptr<Workspace> space) {
  const std::unique_lock<std::mutex> lock(spaces_mutex_, std::try_to_lock);
  if (lock.owns_lock()) spaces_.push_back(std::move(space));
}

void Model::forward(Workspace& space, Team& team) {
  team.run([&](Member& member) { space.runs.empty() ? together(space, member) : apart(space, member); });
}

void Model::apart(Workspace& space, Member& member) {
  const auto share_runs = [&](auto&& work) {
    member.share(static_cast<int>(space.runs.size()), [&](int i) { work(space.runs[static_cast<size_t>(i)]); });
  };
  const int heads = units_ / context_pieces_;
  share_runs([&](const Workspace::Run& run) { embed(space, run.first_token, run.tokens); });
  for (const Layer& layer : layers_)
    share_runs([&](const Workspace::Run& run) {
      float* context = space.threads[static_cast<size_t>(member.index())].context.data();
      for (int group = run.first_group; group < run.last_group; ++group)
        for (int unit = 0; unit < units_; ++unit) {
          heads_phase(space, member, layer, group, unit, context);
          if ((unit + 1) % heads == 0) quantize_piece(space, group, unit / heads, context);
        }
      const int blocks = Workspace::blocks_of(run.tokens);
      const auto start = [&](int block) { return run.first_token + Workspace::part_of(run.tokens, block, blocks); };
      for (int i = 0; i < blocks; ++i) block_phase(space, member, layer, start(i), start(i + 1) - start(i));
    });
}

void Model::together(Workspace& space, Member& member) {
  share_rows(space, member, [&](int first, int count) { embed(space, first, count); });
  for (const Layer& layer : layers_) {
    member.share(static_cast<int>(space.groups.size()) * units_, [&](int item) {
      const int group = item / units_, unit = item % units_, heads = units_ / context_pieces_, piece = unit / heads;
      float* context = space.float_context.data() +
                       static_cast<ptrdiff_t>(space.groups[static_cast<size_t>(group)].first_token) * config().hidden_size;
      heads_phase(space, member, layer, group, unit, context);
      if (space.context_late) return;
      // Whoever ends a piece's last head quantises it.
      std::atomic<int>& done = space.heads_done[static_cast<size_t>(group * context_pieces_ + piece)];
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < heads) return;
      done.store(0, std::memory_order_relaxed);
      quantize_piece(space, group, piece, context);
    });
    if (space.context_late)
      share_rows(space, member, [&](int first, int count) {
        const int channels = config().hidden_size;
        kernels_.quantize(space.float_context.data() + static_cast<ptrdiff_t>(first) * channels, channels, count, 0.0f,
                          space.context.view.from_row(first));
      });
    tokens_phase(space, member, layer);
  }
}

// Rows in as many blocks as there are threads.
template <class Work>
void Model::share_rows(const Workspace& space, Member& member, Work&& work) {
  const int count = std::max(1, std::min(member.threads(), space.tokens / kLeastBlockTokens));
  const auto start = [&](int part) { return Workspace::part_of(space.tokens, part, count); };
  member.share(count, [&](int i) { work(start(i), start(i + 1) - start(i)); });
}

void Model::embed(Workspace& space, int first, int rows) {
  const Config& c = config();
  const Batch& batch = space.batch;
  float* x = space.x.data() + static_cast<ptrdiff_t>(first) * c.hidden_size;
  kernels_.embedding({&tables_, batch.ids + first, batch.types ? batch.types + first : nullptr, space.positions.data() + first, rows, x,
                      c.hidden_size});
  kernels_.layer_norm({x, c.hidden_size, nullptr, 0, embedding_norm_.weight.data(), embedding_norm_.bias.data(), c.layer_norm_eps,
                       rows, c.hidden_size, x, c.hidden_size});
  for (int i = 0; i < 3; ++i)
    if (space.input_of[i] == i) kernels_.quantize(x, c.hidden_size, rows, 0.0f, space.inputs[i].view.from_row(first));
}

// context: of the group, [tokens][hidden size].
void Model::heads_phase(Workspace& space, Member& member, const Layer& layer, int group_index, int unit, float* context) {
  const Config& c = config();
  const Workspace::Group& group = space.groups[static_cast<size_t>(group_index)];
  const int columns = c.hidden_size / units_, head_size = c.hidden_size / c.heads;
  Workspace::Thread& mine = space.threads[static_cast<size_t>(member.index())];
  float* qkv[3];
  const PackedLinear* linear[3] = {&layer.query, &layer.key, &layer.value};
  for (int i = 0; i < 3; ++i) {
    qkv[i] = mine.qkv.data() + static_cast<ptrdiff_t>(i) * group.tokens * columns;
    const Quantized x = space.inputs[space.input_of[i]].view.from_row(group.first_token);
    const int last = unit + 1 == units_ ? linear[i]->panel_count() : linear[i]->panel_at((unit + 1) * columns);
    const uint8_t* next = i < 2 ? linear[i + 1]->weights_of(linear[i + 1]->panel_at(unit * columns)) : nullptr;
    kernels_.grouped_linear({&linear[i]->view(), &x, linear[i]->panel_at(unit * columns), last, group.tokens, qkv[i], columns,
                             unit * columns, Activation::none, mine.linear.data(), 0, next});
  }
  for (int s = group.first_sequence; s < group.last_sequence; ++s) {
    const ptrdiff_t row = space.starts[static_cast<size_t>(s)] - group.first_token;
    for (int h = 0; h < columns; h += head_size)
      kernels_.attention({qkv[0] + row * columns + h, qkv[1] + row * columns + h, qkv[2] + row * columns + h, columns,
                          space.batch.lengths[s], head_size, context + row * c.hidden_size + unit * columns + h, c.hidden_size,
                          mine.attention.data()});
  }
}

void Model::quantize_piece(Workspace& space, int group_index, int piece, const float* context) {
  const Workspace::Group& group = space.groups[static_cast<size_t>(group_index)];
  const Quantized out = space.context.view.from_row(group.first_token);
  const int blocks = context_blocks_ / context_pieces_;
  for (int block = piece * blocks; block < (piece + 1) * blocks; ++block)
    quantize_block(kernels_, context + static_cast<ptrdiff_t>(block) * out.block_size, config().hidden_size, group.tokens, out, block);
}

// A block of tokens on its way through a layer.
struct Model::Rows {
  int first, count;
  float* x;  // [count][hidden size]
  float* y;
  ptrdiff_t y_stride;
  Quantized context, intermediate_in;

  Rows part(int from, int end, int channels) const {
    return {first + from, end - from, x + static_cast<ptrdiff_t>(from) * channels, y + from * y_stride, y_stride,
            context.from_row(from), intermediate_in.from_row(from)};
  }
};

// place: of the first row in the hand.
Model::Rows Model::rows_of(Workspace& space, Hand& hand, int first, int count, int place) {
  const int channels = config().hidden_size;
  return {first, count, space.x.data() + static_cast<ptrdiff_t>(first) * channels,
          hand.y.data() + static_cast<ptrdiff_t>(place) * row_stride(channels), row_stride(channels),
          space.context.view.from_row(first), hand.intermediate_in.view.from_row(place)};
}

// A few rows at a time, which stay in L1 from one step to the next.
template <class Work>
void Model::for_few_rows(const Rows& rows, Work&& work) {
  for (int i = 0; i < rows.count; i += kFewRows) work(rows.part(i, std::min(rows.count, i + kFewRows), config().hidden_size));
}

// What follows attention, by one thread.
void Model::block_phase(Workspace& space, Member& member, const Layer& layer, int first, int count) {
  const Rows rows = rows_of(space, space.threads[static_cast<size_t>(member.index())].hand, first, count, 0);
  post_part(space, member, rows, layer, 0, 1);
  attention_norm(rows, layer);
  for (int lane = 0; lane < lanes_; ++lane) feed_forward_lane(space, member, rows, layer, lane, lane + 1 < lanes_);
  feed_forward_norm(space, rows, layer);
}

// The same by all threads.
void Model::tokens_phase(Workspace& space, Member& member, const Layer& layer) {
  const int parts = space.parts;
  const auto start = [&](int block) { return space.block_start(block); };
  if (parts == 1) {
    member.share(space.blocks, [&](int i) { block_phase(space, member, layer, start(i), start(i + 1) - start(i)); });
    return;
  }
  const auto rows = [&](int first, int count) { return rows_of(space, space.hand, first, count, first); };
  const auto share_parts = [&](auto&& work) {
    // Part by part, so that a thread reads few of the weights.
    member.share(space.blocks * parts, [&](int item) {
      const int i = item % space.blocks;
      work(rows(start(i), start(i + 1) - start(i)), item / space.blocks);
    });
  };
  share_parts([&](const Rows& block, int part) { post_part(space, member, block, layer, part, parts); });
  share_rows(space, member, [&](int first, int count) { attention_norm(rows(first, count), layer); });
  share_parts([&](const Rows& block, int lane) { feed_forward_lane(space, member, block, layer, lane, false); });
  share_rows(space, member, [&](int first, int count) { feed_forward_norm(space, rows(first, count), layer); });
}

void Model::post_part(Workspace& space, Member& member, const Rows& rows, const Layer& layer, int part, int parts) {
  Workspace::Thread& mine = space.threads[static_cast<size_t>(member.index())];
  const int panels = layer.post.panel_count();
  const int wide = config().intermediate_size / lanes_;
  kernels_.grouped_linear({&layer.post.view(), &rows.context, panels * part / parts, panels * (part + 1) / parts, rows.count,
                           rows.y, rows.y_stride, 0, Activation::none, mine.linear.data(), 0,
                           layer.intermediate.weights_of(layer.intermediate.panel_at(part * wide))});
}

void Model::attention_norm(const Rows& rows, const Layer& layer) {
  const int channels = config().hidden_size;
  for_few_rows(rows, [&](const Rows& few) {
    norm(few, layer.attention_norm);
    kernels_.quantize(few.x, channels, few.count, 0.0f, few.intermediate_in);
  });
}

void Model::feed_forward_lane(Workspace& space, Member& member, const Rows& rows, const Layer& layer, int lane, bool ahead) {
  Workspace::Thread& mine = space.threads[static_cast<size_t>(member.index())];
  const Config& c = config();
  const int wide = c.intermediate_size / lanes_, narrow = c.hidden_size / lanes_, wide_stride = row_stride(wide);
  const auto panels_end = [&](const PackedLinear& linear, int end) {
    return lane + 1 == lanes_ ? linear.panel_count() : linear.panel_at(end);
  };
  kernels_.grouped_linear({&layer.intermediate.view(), &rows.intermediate_in, layer.intermediate.panel_at(lane * wide),
                           panels_end(layer.intermediate, (lane + 1) * wide), rows.count, mine.wide.data(), wide_stride, lane * wide,
                           activation_, mine.linear.data(), 0, layer.output.weights_of(layer.output.panel_at(lane * narrow))});
  kernels_.quantize(mine.wide.data(), wide_stride, rows.count, activation_floor(activation_), mine.intermediate_out.view);
  kernels_.grouped_linear({&layer.output.view(), &mine.intermediate_out.view, layer.output.panel_at(lane * narrow),
                           panels_end(layer.output, (lane + 1) * narrow), rows.count, rows.y, rows.y_stride, 0, Activation::none,
                           mine.linear.data(), lane * c.output_groups / lanes_,
                           ahead ? layer.intermediate.weights_of(layer.intermediate.panel_at((lane + 1) * wide)) : nullptr});
}

void Model::feed_forward_norm(Workspace& space, const Rows& rows, const Layer& layer) {
  const int channels = config().hidden_size;
  const bool last = &layer == &layers_.back();
  for_few_rows(rows, [&](const Rows& few) {
    norm(few, layer.feed_forward_norm);
    for (int i = 0; i < 3 && !last; ++i)
      if (space.input_of[i] == i) kernels_.quantize(few.x, channels, few.count, 0.0f, space.inputs[i].view.from_row(few.first));
  });
}

void Model::norm(const Rows& rows, const Norm& norm) {
  const int channels = config().hidden_size;
  kernels_.layer_norm({rows.y, rows.y_stride, rows.x, channels, norm.weight.data(), norm.bias.data(), config().layer_norm_eps,
                       rows.count, channels, rows.x, channels});
}

void Model::heads_of(Workspace& space, const Outputs& outputs) {
  const Config& c = config();
  const size_t channels = static_cast<size_t>(c.hidden_size);
  const float* x = space.x.data();
  const int sequences = space.batch.sequences;
  if (outputs.hidden) std::memcpy(outputs.hidden, x, sizeof(float) * channels * static_cast<size_t>(space.tokens));
  if (outputs.mean)
    for (int s = 0; s < sequences; ++s) {
      float* mean = outputs.mean + static_cast<size_t>(s) * channels;
      std::fill(mean, mean + channels, 0.0f);
      for (int t = space.starts[static_cast<size_t>(s)]; t < space.starts[static_cast<size_t>(s) + 1]; ++t)
        for (size_t i = 0; i < channels; ++i) mean[i] += x[static_cast<size_t>(t) * channels + i];
      for (size_t i = 0; i < channels; ++i) mean[i] /= static_cast<float>(space.batch.lengths[s]);
    }
  const bool per_token = c.head == "token_classification";
  std::vector<float> pooled;
  if (outputs.pooled || (outputs.logits && !per_token)) {
    pooled.resize(static_cast<size_t>(sequences) * channels);
    for (int s = 0; s < sequences; ++s)
      std::memcpy(pooled.data() + static_cast<size_t>(s) * channels, x + static_cast<size_t>(space.starts[static_cast<size_t>(s)]) * channels,
                  sizeof(float) * channels);
    QuantizedBuffer first;
    first.resize(sequences, 1, c.hidden_size);
    kernels_.quantize(pooled.data(), c.hidden_size, sequences, 0.0f, first.view);
    AlignedBuffer<uint8_t> scratch(linear_scratch(pooler_.view(), 1, sequences));
    kernels_.grouped_linear({&pooler_.view(), &first.view, 0, pooler_.panel_count(), sequences, pooled.data(), c.hidden_size, 0,
                             Activation::tanh, scratch.data()});
    if (outputs.pooled) std::memcpy(outputs.pooled, pooled.data(), sizeof(float) * pooled.size());
  }
  if (!outputs.logits) return;
  const int rows = per_token ? space.tokens : sequences;
  const float* from = per_token ? x : pooled.data();
  for (int r = 0; r < rows; ++r)
    for (int k = 0; k < c.num_labels; ++k) {
      const float* row = from + static_cast<size_t>(r) * channels;
      const float* weight = classifier_.data() + static_cast<size_t>(k) * channels;
      double sum = classifier_bias_[static_cast<size_t>(k)];
      for (size_t i = 0; i < channels; ++i) sum += static_cast<double>(row[i]) * weight[i];
      outputs.logits[static_cast<size_t>(r) * static_cast<size_t>(c.num_labels) + static_cast<size_t>(k)] = static_cast<float>(sum);
    }
}

// The decoder is the word embedding, which is not packed: its rows are read as they lie in the file, once for all gaps.
// Activations stay fp32 here, as the last scores are what a caller compares.
void Model::score_vocabulary(Team& team, std::vector<float>& rows, const Gaps& gaps) {
  const Config& c = config();
  const int channels = c.hidden_size;
  QuantizedBuffer input;
  input.resize(gaps.count, 1, channels);
  kernels_.quantize(rows.data(), channels, gaps.count, 0.0f, input.view);
  AlignedBuffer<uint8_t> scratch(linear_scratch(masked_transform_.view(), 1, gaps.count));
  kernels_.grouped_linear({&masked_transform_.view(), &input.view, 0, masked_transform_.panel_count(), gaps.count, rows.data(),
                           channels, 0, activation_, scratch.data()});
  kernels_.layer_norm({rows.data(), channels, nullptr, 0, masked_norm_.weight.data(), masked_norm_.bias.data(),
                       c.layer_norm_eps, gaps.count, channels, rows.data(), channels});
  team.run([&](Member& member) {
    member.share((c.vocab_size + kVocabularyBlock - 1) / kVocabularyBlock, [&](int block) {
      const int end = std::min(c.vocab_size, (block + 1) * kVocabularyBlock);
      for (int v = block * kVocabularyBlock; v < end; ++v) {
        const int8_t* word = tables_.word + static_cast<ptrdiff_t>(v) * channels;
        for (int i = 0; i < gaps.count; ++i) {
          const float* row = rows.data() + static_cast<ptrdiff_t>(i) * channels;
          float& logit = gaps.logits[static_cast<ptrdiff_t>(i) * c.vocab_size + v];
          logit = v < c.real_vocab_size ? dot(row, word, channels) * tables_.word_scale[v] + masked_bias_[static_cast<size_t>(v)]
                                        : -std::numeric_limits<float>::infinity();
        }
      }
    });
  });
}

}  // namespace sqb
