// An artifact on disk -> checked, typed views of its tensors.
//
// A folder with config.json (sizes, labels) and model.safetensors: matrices int8 with one fp32 scale per output channel
// (`<name>.weight`, `<name>.scale`, `<name>.bias`), word and position embeddings int8 with one scale per row, norms and
// biases fp32. Nothing in it is trusted: lengths, offsets, types, shapes and scales are checked before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "json.h"

namespace sqb {

// A file in memory, read-only and mapped where the system can; or bytes of the caller's, which must outlive it.
class Bytes {
 public:
  Bytes() = default;
  static Bytes map(const std::string& path);
  static Bytes borrow(const void* data, size_t size);
  Bytes(Bytes&& other) noexcept;
  Bytes& operator=(Bytes&& other) noexcept;
  ~Bytes();

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // Give the pages back; they are read again when touched.
  void forget() const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  std::vector<uint8_t> owned_;
};

struct Config {
  int vocab_size = 0;
  int real_vocab_size = 0;
  int hidden_size = 0;
  int layers = 0;
  int heads = 0;
  int intermediate_size = 0;
  int max_positions = 0;
  int type_vocab_size = 0;
  int q_groups = 0, k_groups = 0, v_groups = 0, post_groups = 0, intermediate_groups = 0, output_groups = 0;
  int num_labels = 0;
  float layer_norm_eps = 1e-12f;
  std::string activation;
  std::string head;  // "encoder", "sequence_classification", "token_classification", "masked_lm"
};

class Artifact {
 public:
  // Throws InputError naming file and tensor.
  static Artifact open(const std::string& folder);
  static Artifact parse(Bytes config, Bytes tensors, const std::string& where);

  const Config& config() const { return config_; }
  bool has(const std::string& name) const { return index_.count(name) > 0; }
  // Views into the file, valid while the artifact lives. The shape must be exactly this.
  const int8_t* int8(const std::string& name, const std::vector<int64_t>& shape) const;
  // Every value must be finite.
  const float* fp32(const std::string& name, const std::vector<int64_t>& shape) const;
  // Finite and not negative.
  const float* scale(const std::string& name, int64_t count) const;
  void forget() const { tensors_.forget(); }

 private:
  struct Tensor {
    std::string type;
    std::vector<int64_t> shape;
    size_t begin = 0, end = 0;
  };
  const Tensor& find(const std::string& name, const char* type, const std::vector<int64_t>& shape) const;
  void read_header();

  std::string where_;
  Config config_;
  Bytes tensors_;
  size_t data_begin_ = 0;
  std::map<std::string, Tensor> index_;
};

}  // namespace sqb
