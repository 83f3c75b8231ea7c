// The reader under damage: particular faults give messages that name them, and no file that is cut short is accepted.
// Random damage is in fuzz_artifact.cc.
#include <cstring>
#include <limits>

#include "synthetic.h"

using namespace sqb;

namespace {

// Exact-size copies on the heap, so that a sanitizer sees every step beyond.
std::string try_load(const std::string& config, const std::string& tensors, size_t shift = 0) {
  std::vector<char> config_copy(config.begin(), config.end()), tensors_copy(shift);
  tensors_copy.insert(tensors_copy.end(), tensors.begin(), tensors.end());
  try {
    Model model(Artifact::parse(Bytes::borrow(config_copy.data(), config_copy.size()),
                                Bytes::borrow(tensors_copy.data() + shift, tensors.size()), "test"),
                best_kernels(), 1);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

void expect(const Files& files, const char* from, const char* to, bool in_config, const char* part) {
  std::string config = files.config, tensors = files.tensors;
  std::string& text = in_config ? config : tensors;
  const size_t at = text.find(from);
  CHECK(at != std::string::npos, "no %s", from);
  text.replace(at, std::strlen(from), to);
  const std::string message = try_load(config, tensors);
  CHECK(message.find(part) != std::string::npos, "%s -> %s: '%s' lacks '%s'", from, to, message.c_str(), part);
}

}  // namespace

int main() {
  Sizes sizes;
  sizes.hidden = 8, sizes.heads = 4, sizes.intermediate = 16, sizes.positions = 5, sizes.layers = 1, sizes.vocabulary = 7;
  const Files files = synthetic(sizes);
  CHECK(try_load(files.config, files.tensors).empty(), "the whole file: %s", try_load(files.config, files.tensors).c_str());
  expect(files, "\"hidden_size\": 8", "\"hidden_size\": 0", true, "hidden_size must be a whole number");
  expect(files, "\"hidden_size\": 8", "\"hidden_size\": 9", true, "groups");
  expect(files, "\"hidden_size\": 8", "\"hidden_size\": 1e300", true, "hidden_size must be a whole number");
  expect(files, "\"q_groups\": 4", "\"q_groups\": 3", true, "q_groups 3");
  expect(files, "squeezebert-native", "something", true, "not an exported model");
  expect(files, "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"gulu\"", true, "gulu");
  expect(files, "\"head\": \"sequence_classification\"", "\"head\": \"sequence_clarification\"", true, "sequence_clarification is unknown");
  expect(files, "embeddings.word.weight", "embeddings.word.waight", false, "no tensor embeddings.word.weight");
  expect(files, "\"dtype\": \"I8\"", "\"dtype\": \"U8\"", false, "not I8");
  // Numbers, whatever the locale: one value in many ways, and what is no number.
  for (const char* eps : {"1e-05", "0.00001", "1.0E-5", "10e-6", "0.1e-4", "0.010e-03"}) {
    std::string config = files.config;
    config.replace(config.find("1e-12"), 5, eps);
    const Artifact artifact = Artifact::parse(Bytes::borrow(config.data(), config.size()),
                                              Bytes::borrow(files.tensors.data(), files.tensors.size()), "test");
    CHECK(artifact.config().layer_norm_eps == 1e-5f, "%s is read as %g", eps, static_cast<double>(artifact.config().layer_norm_eps));
  }
  for (const char* eps : {"01e-5", ".5", "1.", "1e", "1e+", "+1", "--1", "-", "0,5", "1e999", "0x1p-3", "nan", "1.5.5"})
    expect(files, "1e-12", eps, true, "not valid JSON");
  // Every byte belongs to one tensor.
  CHECK(try_load(files.config, files.tensors + "four").find("bytes of no tensor") != std::string::npos, "four bytes too many");
  expect(files, "\"data_offsets\": [0, ", "\"data_offsets\": [4, ", false, "embeddings.word.scale: lies over another tensor, or leaves a gap");
  const std::string next = ", \"embeddings.position.scale\": {\"dtype\": \"F32\", \"shape\": [5], \"data_offsets\": [28, 48]}";
  expect(files, next.c_str(), std::string(next).replace(next.find("[28, 48]"), 8, "[ 0, 20]").c_str(), false, "lies over another tensor");
  for (size_t shift = 0; shift <= 4; ++shift) {
    const std::string message = try_load(files.config, files.tensors, shift);
    CHECK(shift % 4 == 0 ? message.empty() : message.find("4-byte border") != std::string::npos, "moved by %zu bytes: '%s'", shift, message.c_str());
  }
  // The data begin with the scale of the first word.
  const std::pair<float, const char*> scales[] = {{std::numeric_limits<float>::quiet_NaN(), "embeddings.word.scale has values that are not finite"},
                                                  {std::numeric_limits<float>::infinity(), "not finite"},
                                                  {-1.0f, "embeddings.word.scale has a negative scale"},
                                                  {0.0f, ""}};
  for (const auto& [value, part] : scales) {
    std::string tensors = files.tensors;
    std::memcpy(&tensors[8 + static_cast<unsigned char>(tensors[0]) + 256u * static_cast<unsigned char>(tensors[1])], &value, 4);
    const std::string message = try_load(files.config, tensors);
    CHECK(message.find(part) != std::string::npos && (*part != 0 || message.empty()), "a scale of %g: '%s'", static_cast<double>(value), message.c_str());
  }
  for (size_t length = 0; length < files.tensors.size(); length += length < 4000 ? 1 : 97)
    CHECK(!try_load(files.config, files.tensors.substr(0, length)).empty(), "cut to %zu bytes and no error", length);
  return finish();
}
