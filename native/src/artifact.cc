#include "artifact.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#if !defined(_WIN32) && !defined(__wasm__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define SQB_MMAP 1
#endif

namespace sqb {

namespace {

// Beyond these no model makes sense, and products of sizes would leave 64 bits or int32 sums.
constexpr int kMostChannels = 65536;
constexpr int kMostRows = 1 << 24;

std::string show(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

int whole(const Json& config, const char* name, int most, const std::string& where) {
  const Json* value = config.find(name);
  if (value == nullptr) throw InputError(where + ": no " + name);
  const double number = value->number();
  if (value->kind() != Json::Kind::number || number < 1 || number > most || number != std::floor(number))
    throw InputError(where + ": " + name + " must be a whole number from 1 to " + std::to_string(most));
  return static_cast<int>(number);
}

std::string word(const Json& config, const char* name, const std::string& where) {
  const Json* value = config.find(name);
  if (value == nullptr || value->kind() != Json::Kind::string) throw InputError(where + ": " + name + " must be a text");
  return value->string();
}

Config read_config(std::string_view text, const std::string& where) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const InputError& error) {
    throw InputError(where + ": " + error.what());
  }
  if (json.kind() != Json::Kind::object) throw InputError(where + ": must hold a JSON object");
  if (word(json, "format", where) != "squeezebert-native")
    throw InputError(where + ": not an exported model; make one with squeezebert export native");
  if (whole(json, "format_version", 1000, where) != 1)
    throw InputError(where + ": a newer format than this program reads; update squeezebert");
  Config c;
  c.vocab_size = whole(json, "vocab_size", kMostRows, where);
  c.real_vocab_size = json.find("real_vocab_size") ? whole(json, "real_vocab_size", c.vocab_size, where) : c.vocab_size;
  c.hidden_size = whole(json, "hidden_size", kMostChannels, where);
  c.layers = whole(json, "num_hidden_layers", 1024, where);
  c.heads = whole(json, "num_attention_heads", c.hidden_size, where);
  c.intermediate_size = whole(json, "intermediate_size", kMostChannels, where);
  c.max_positions = whole(json, "max_position_embeddings", 32768, where);
  c.type_vocab_size = whole(json, "type_vocab_size", kMostRows, where);
  c.num_labels = whole(json, "num_labels", kMostChannels, where);
  const struct {
    const char* name;
    int* value;
    int in, out;
  } groups[] = {{"q_groups", &c.q_groups, c.hidden_size, c.hidden_size},
                {"k_groups", &c.k_groups, c.hidden_size, c.hidden_size},
                {"v_groups", &c.v_groups, c.hidden_size, c.hidden_size},
                {"post_attention_groups", &c.post_groups, c.hidden_size, c.hidden_size},
                {"intermediate_groups", &c.intermediate_groups, c.hidden_size, c.intermediate_size},
                {"output_groups", &c.output_groups, c.intermediate_size, c.hidden_size}};
  for (const auto& each : groups) {
    *each.value = whole(json, each.name, c.hidden_size, where);
    if (each.in % *each.value || each.out % *each.value)
      throw InputError(where + ": " + each.name + " " + std::to_string(*each.value) + " does not divide the channels");
  }
  if (c.hidden_size % c.heads) throw InputError(where + ": hidden_size is not a multiple of num_attention_heads");
  if (c.hidden_size / c.heads > 1024) throw InputError(where + ": heads of more than 1024 channels are not supported");
  const Json* eps = json.find("layer_norm_eps");
  if (eps == nullptr || eps->kind() != Json::Kind::number || !(eps->number() > 0 && eps->number() < 1))
    throw InputError(where + ": layer_norm_eps must lie between 0 and 1");
  c.layer_norm_eps = static_cast<float>(eps->number());
  c.activation = word(json, "hidden_act", where);
  c.head = word(json, "head", where);
  if (c.head != "encoder" && c.head != "sequence_classification" && c.head != "token_classification" && c.head != "masked_lm")
    throw InputError(where + ": head " + c.head + " is unknown; update squeezebert");
  return c;
}

}  // namespace

Bytes Bytes::map(const std::string& path) {
  Bytes bytes;
#if SQB_MMAP
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file < 0) throw InputError(path + ": " + (errno == ENOENT ? "no such file" : std::strerror(errno)));
  if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(file);
    throw InputError(path + ": not a file");
  }
  bytes.size_ = static_cast<size_t>(status.st_size);
  void* data = bytes.size_ ? ::mmap(nullptr, bytes.size_, PROT_READ, MAP_PRIVATE, file, 0) : nullptr;
  ::close(file);
  if (bytes.size_ == 0) throw InputError(path + ": empty file");
  if (data == MAP_FAILED) {
    bytes.size_ = 0;
    throw InputError(path + ": cannot be mapped into memory");
  }
  bytes.data_ = static_cast<const uint8_t*>(data);
  bytes.mapped_ = true;
#else
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) throw InputError(path + ": no such file");
  uint8_t part[1 << 14];
  while (const size_t count = std::fread(part, 1, sizeof part, file)) bytes.owned_.insert(bytes.owned_.end(), part, part + count);
  std::fclose(file);
  bytes.data_ = bytes.owned_.data();
  bytes.size_ = bytes.owned_.size();
#endif
  return bytes;
}

Bytes Bytes::borrow(const void* data, size_t size) {
  Bytes bytes;
  bytes.data_ = static_cast<const uint8_t*>(data);
  bytes.size_ = size;
  return bytes;
}

Bytes::Bytes(Bytes&& other) noexcept { *this = std::move(other); }

Bytes& Bytes::operator=(Bytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  owned_.swap(other.owned_);
  return *this;
}

Bytes::~Bytes() {
#if SQB_MMAP
  if (mapped_) ::munmap(const_cast<uint8_t*>(data_), size_);
#endif
}

void Bytes::forget() const {
#if SQB_MMAP
  if (mapped_) ::madvise(const_cast<uint8_t*>(data_), size_, MADV_DONTNEED);
#endif
}

Artifact Artifact::open(const std::string& folder) {
  return parse(Bytes::map(folder + "/config.json"), Bytes::map(folder + "/model.safetensors"), folder);
}

Artifact Artifact::parse(Bytes config, Bytes tensors, const std::string& where) {
  Artifact artifact;
  artifact.config_ = read_config({reinterpret_cast<const char*>(config.data()), config.size()}, where + "/config.json");
  artifact.where_ = where + "/model.safetensors";
  artifact.tensors_ = std::move(tensors);
  artifact.read_header();
  return artifact;
}

void Artifact::read_header() {
  if (tensors_.size() < 8) throw InputError(where_ + ": too short for a safetensors file");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | tensors_.data()[i];
  if (length > tensors_.size() - 8 || length > (100u << 20))
    throw InputError(where_ + ": truncated, or not a safetensors file; fetch or copy it again");
  data_begin_ = 8 + static_cast<size_t>(length);
  const size_t data_size = tensors_.size() - data_begin_;
  Json header;
  try {
    header = Json::parse({reinterpret_cast<const char*>(tensors_.data()) + 8, static_cast<size_t>(length)});
  } catch (const InputError& error) {
    throw InputError(where_ + ": header: " + error.what());
  }
  if (header.kind() != Json::Kind::object) throw InputError(where_ + ": header must be a JSON object");
  for (const auto& [name, entry] : header.fields()) {
    if (name == "__metadata__") continue;
    const Json* type = entry.find("dtype");
    const Json* shape = entry.find("shape");
    const Json* offsets = entry.find("data_offsets");
    if (!type || !shape || !offsets || type->kind() != Json::Kind::string || shape->kind() != Json::Kind::array ||
        offsets->kind() != Json::Kind::array || offsets->items().size() != 2)
      throw InputError(where_ + ": " + name + ": needs dtype, shape and data_offsets");
    Tensor tensor;
    tensor.type = type->string();
    for (const Json& size : shape->items()) {
      if (size.kind() != Json::Kind::number || !(size.number() >= 0 && size.number() <= 1e12) ||
          size.number() != std::floor(size.number()))
        throw InputError(where_ + ": " + name + ": impossible shape");
      tensor.shape.push_back(static_cast<int64_t>(size.number()));
    }
    size_t ends[2];
    for (int i = 0; i < 2; ++i) {
      const Json& end = offsets->items()[static_cast<size_t>(i)];
      if (end.kind() != Json::Kind::number || !(end.number() >= 0 && end.number() <= static_cast<double>(data_size)) ||
          end.number() != std::floor(end.number()))
        throw InputError(where_ + ": " + name + ": lies outside the file; fetch or copy it again");
      ends[i] = static_cast<size_t>(end.number());
    }
    if (ends[0] > ends[1]) throw InputError(where_ + ": " + name + ": ends before it begins");
    tensor.begin = ends[0];
    tensor.end = ends[1];
    index_.emplace(name, std::move(tensor));
  }
  // As safetensors itself wants it, each byte belongs to one tensor: so no file asks for more memory than it holds data.
  std::vector<const std::pair<const std::string, Tensor>*> in_order;
  for (const auto& entry : index_) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::make_pair(a->second.begin, a->second.end) < std::make_pair(b->second.begin, b->second.end);
  });
  size_t end = 0;
  for (const auto* entry : in_order) {
    if (entry->second.begin != end)
      throw InputError(where_ + ": " + entry->first + ": lies over another tensor, or leaves a gap; fetch or copy it again");
    end = entry->second.end;
  }
  if (end != data_size) throw InputError(where_ + ": has bytes of no tensor at its end; fetch or copy it again");
}

const Artifact::Tensor& Artifact::find(const std::string& name, const char* type, const std::vector<int64_t>& shape) const {
  const auto found = index_.find(name);
  if (found == index_.end()) throw InputError(where_ + ": no tensor " + name);
  const Tensor& tensor = found->second;
  if (tensor.type != type) throw InputError(where_ + ": " + name + " is " + tensor.type + ", not " + type);
  if (tensor.shape != shape)
    throw InputError(where_ + ": " + name + " is " + show(tensor.shape) + ", but config.json asks for " + show(shape));
  uint64_t bytes = std::strcmp(type, "F32") == 0 ? 4 : 1;
  for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);  // sizes come from a checked config: below 2^45
  if (tensor.end - tensor.begin != bytes) throw InputError(where_ + ": " + name + " has not the bytes that its shape needs");
  if (std::strcmp(type, "F32") == 0 && reinterpret_cast<uintptr_t>(tensors_.data() + data_begin_ + tensor.begin) % 4 != 0)
    throw InputError(where_ + ": " + name + " does not start on a 4-byte border; export the model again");
  return tensor;
}

const int8_t* Artifact::int8(const std::string& name, const std::vector<int64_t>& shape) const {
  const Tensor& tensor = find(name, "I8", shape);
  const auto* values = reinterpret_cast<const int8_t*>(tensors_.data() + data_begin_ + tensor.begin);
  // -128 would leave the range for which sums are known to fit.
  if (std::memchr(values, 0x80, tensor.end - tensor.begin) != nullptr)
    throw InputError(where_ + ": " + name + " holds -128; weights run from -127 to 127");
  return values;
}

const float* Artifact::fp32(const std::string& name, const std::vector<int64_t>& shape) const {
  const Tensor& tensor = find(name, "F32", shape);
  const auto* values = reinterpret_cast<const float*>(tensors_.data() + data_begin_ + tensor.begin);
  const size_t count = (tensor.end - tensor.begin) / 4;
  for (size_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i])) throw InputError(where_ + ": " + name + " has values that are not finite");
  return values;
}

const float* Artifact::scale(const std::string& name, int64_t count) const {
  const float* values = fp32(name, {count});
  for (int64_t i = 0; i < count; ++i)
    if (values[i] < 0) throw InputError(where_ + ": " + name + " has a negative scale");
  return values;
}

}  // namespace sqb
