// Small random artifacts in memory.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "model.h"

struct Sizes {
  int vocabulary = 37, hidden = 64, layers = 2, heads = 4, intermediate = 128, positions = 530, types = 2;
  int q = 4, k = 4, v = 4, post = 1, wide = 4, out = 4, labels = 3;
  int padding = 0;  // rows of the vocabulary that stand for no token
  std::string activation = "gelu", head = "sequence_classification";
};

struct Files {
  std::string config, tensors;
};

class FileWriter {
 public:
  void add(const std::string& name, const std::vector<float>& values, const std::string& shape) {
    // fp32 first, so that it lies on 4-byte borders.
    fp32_.push_back({name, "F32", shape, {reinterpret_cast<const char*>(values.data()), values.size() * 4}});
  }
  void add(const std::string& name, const std::vector<int8_t>& values, const std::string& shape) {
    int8_.push_back({name, "I8", shape, {reinterpret_cast<const char*>(values.data()), values.size()}});
  }
  std::string finish() const {
    std::string header = "{\"__metadata__\": {\"format\": \"np\"}", data;
    for (const auto* list : {&fp32_, &int8_})
      for (const Entry& entry : *list) {
        header += ", \"" + entry.name + "\": {\"dtype\": \"" + entry.type + "\", \"shape\": [" + entry.shape +
                  "], \"data_offsets\": [" + std::to_string(data.size()) + ", " + std::to_string(data.size() + entry.bytes.size()) + "]}";
        data += entry.bytes;
      }
    header += "}";
    while (header.size() % 8) header += ' ';
    std::string file;
    for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 255);
    return file + header + data;
  }

 private:
  struct Entry {
    std::string name, type, shape, bytes;
  };
  std::vector<Entry> fp32_, int8_;
};

inline Files synthetic(const Sizes& s, unsigned seed = 3) {
  std::mt19937 random(seed);
  FileWriter file;
  const auto positive = [&](int count, float size) {
    std::vector<float> values = draw(random, static_cast<size_t>(count), size);
    for (float& v : values) v = std::fabs(v) + 0.001f;
    return values;
  };
  const auto matrix = [&](const std::string& name, int out, int in, float size) {
    file.add(name + ".weight", draw_int8(random, static_cast<size_t>(out) * static_cast<size_t>(in)), std::to_string(out) + ", " + std::to_string(in));
    file.add(name + ".scale", positive(out, size), std::to_string(out));
  };
  const auto linear = [&](const std::string& name, int out, int in) {
    matrix(name, out, in, 0.01f / std::sqrt(static_cast<float>(in)));
    file.add(name + ".bias", draw(random, static_cast<size_t>(out), 0.3f), std::to_string(out));
  };
  const auto norm = [&](const std::string& name) {
    file.add(name + ".weight", draw(random, static_cast<size_t>(s.hidden)), std::to_string(s.hidden));
    file.add(name + ".bias", draw(random, static_cast<size_t>(s.hidden), 0.3f), std::to_string(s.hidden));
  };
  matrix("embeddings.word", s.vocabulary, s.hidden, 0.01f);
  matrix("embeddings.position", s.positions, s.hidden, 0.01f);
  file.add("embeddings.token_type.weight", draw(random, static_cast<size_t>(s.types * s.hidden)), std::to_string(s.types) + ", " + std::to_string(s.hidden));
  norm("embeddings.norm");
  for (int n = 0; n < s.layers; ++n) {
    const std::string layer = "layers." + std::to_string(n) + ".";
    linear(layer + "attention.query", s.hidden, s.hidden / s.q);
    linear(layer + "attention.key", s.hidden, s.hidden / s.k);
    linear(layer + "attention.value", s.hidden, s.hidden / s.v);
    linear(layer + "attention.output", s.hidden, s.hidden / s.post);
    linear(layer + "feed_forward.intermediate", s.intermediate, s.hidden / s.wide);
    linear(layer + "feed_forward.output", s.hidden, s.intermediate / s.out);
    norm(layer + "attention_norm");
    norm(layer + "feed_forward_norm");
  }
  linear("pooler.dense", s.hidden, s.hidden);
  file.add("classifier.weight", draw(random, static_cast<size_t>(s.labels * s.hidden)), std::to_string(s.labels) + ", " + std::to_string(s.hidden));
  file.add("classifier.bias", draw(random, static_cast<size_t>(s.labels)), std::to_string(s.labels));
  if (s.head == "masked_lm") {
    linear("mlm.transform", s.hidden, s.hidden);
    norm("mlm.norm");
    file.add("mlm.bias", draw(random, static_cast<size_t>(s.vocabulary)), std::to_string(s.vocabulary));
  }
  std::string config = "{\"format\": \"squeezebert-native\", \"format_version\": 1, \"head\": \"" + s.head + "\", \"hidden_act\": \"" + s.activation + "\", \"layer_norm_eps\": 1e-12";
  const std::pair<const char*, int> numbers[] = {
      {"vocab_size", s.vocabulary}, {"real_vocab_size", s.vocabulary - s.padding}, {"hidden_size", s.hidden}, {"num_hidden_layers", s.layers}, {"num_attention_heads", s.heads},
      {"intermediate_size", s.intermediate}, {"max_position_embeddings", s.positions}, {"type_vocab_size", s.types},
      {"q_groups", s.q}, {"k_groups", s.k}, {"v_groups", s.v}, {"post_attention_groups", s.post},
      {"intermediate_groups", s.wide}, {"output_groups", s.out}, {"num_labels", s.labels}};
  for (const auto& [name, value] : numbers) config += std::string(", \"") + name + "\": " + std::to_string(value);
  return {config + "}", file.finish()};
}

inline std::unique_ptr<sqb::Model> load(const Files& files, const sqb::Kernels& kernels, int threads) {
  return std::make_unique<sqb::Model>(
      sqb::Artifact::parse(sqb::Bytes::borrow(files.config.data(), files.config.size()),
                           sqb::Bytes::borrow(files.tensors.data(), files.tensors.size()), "test"),
      kernels, threads);
}
