// Hostile artifacts: whatever the bytes of config.json and model.safetensors, the reader gives a model that runs or an
// InputError; never a crash, a read beyond the end or undefined behaviour (build with sanitizers, -DSQB_SANITIZE=...).
//
// An input is one row of bytes: the size of config.json (4 bytes, little-endian), config.json, model.safetensors.
// With -DSQB_LIBFUZZER=ON, which wants clang, libFuzzer drives it. Otherwise it is a program that mutates a whole artifact:
//
//     fuzz_artifact [ROUNDS [SEED]]
//     fuzz_artifact seeds FOLDER      writes the whole artifacts there, for libFuzzer to begin with
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>

#include "synthetic.h"

using namespace sqb;

namespace {

int64_t accepted = 0;

void try_load(const std::string& config, const std::string& tensors) {
  // Exact-size copies on the heap, so that a sanitizer sees every step beyond.
  const std::vector<char> config_copy(config.begin(), config.end()), tensors_copy(tensors.begin(), tensors.end());
  try {
    Model model(Artifact::parse(Bytes::borrow(config_copy.data(), config_copy.size()),
                                Bytes::borrow(tensors_copy.data(), tensors_copy.size()), "fuzz"),
                best_kernels(), 1);
    const Config& c = model.config();
    const std::vector<int32_t> lengths = {1, std::min(3, c.max_positions)};
    const std::vector<int32_t> ids = {0, c.vocab_size - 1, 0, c.vocab_size / 2};
    const size_t channels = static_cast<size_t>(c.hidden_size);
    std::vector<float> logits(4 * static_cast<size_t>(c.num_labels)), pooled(2 * channels), hidden(4 * channels);
    const Batch batch{ids.data(), nullptr, lengths.data(), 2};
    model.run(batch, Outputs{model.has_classifier() ? logits.data() : nullptr, model.has_pooler() ? pooled.data() : nullptr,
                             nullptr, hidden.data()});
    if (model.has_masked_lm()) {
      std::vector<float> scores(static_cast<size_t>(c.vocab_size));
      const int32_t place = 0;
      model.run_masked(batch, {&place, 1, scores.data()});
    }
    ++accepted;
  } catch (const InputError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  uint32_t config_size;
  std::memcpy(&config_size, data, 4);
  if (config_size > size - 4) return 0;
  const char* text = reinterpret_cast<const char*>(data) + 4;
  try_load({text, config_size}, {text + config_size, size - 4 - config_size});
  return 0;
}

#if !SQB_LIBFUZZER

namespace {

size_t header_end(const std::string& tensors) {
  return 8 + static_cast<unsigned char>(tensors[0]) + 256u * static_cast<unsigned char>(tensors[1]);
}

// Bytes, digits, deletions and insertions anywhere; most of them in the two JSON texts, where a reader goes wrong.
void mutate_text(std::mt19937& random, std::string& text, size_t range) {
  if (range == 0) return;
  const size_t at = random() % range;
  switch (random() % 5) {
    case 0: text[at] = static_cast<char>(random()); break;
    case 1: text[at] = static_cast<char>('0' + random() % 10); break;
    case 2: text.erase(at, random() % 9); break;
    case 3: text.resize(random() % (text.size() + 1)); break;
    default: text.insert(at, std::string(random() % 5, "0123456789{}[]\",:-e.\\"[random() % 21])); break;
  }
}

// A number of the file becomes one that arithmetic stumbles over.
void mutate_value(std::mt19937& random, std::string& tensors) {
  const float values[] = {0.0f, -0.0f, -1.0f, 1e-45f, 1e-30f, 3e38f, -3e38f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()};
  const size_t begin = header_end(tensors), places = (tensors.size() - begin) / 4;
  std::memcpy(&tensors[begin + random() % places * 4], &values[random() % 9], 4);
}

// Another digit in a number of the header keeps the file plausible: a shape or an offset that lies.
void mutate_digit(std::mt19937& random, std::string& tensors) {
  const size_t start = random() % header_end(tensors), end = header_end(tensors);
  for (size_t at = start; at < end; ++at)
    if (tensors[at] >= '0' && tensors[at] <= '9') {
      tensors[at] = static_cast<char>('0' + random() % 10);
      return;
    }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "seeds") == 0) {
    std::fprintf(stderr, "usage: fuzz_artifact seeds FOLDER\n");
    return 2;
  }
  const bool seeds = argc == 3 && std::strcmp(argv[1], "seeds") == 0;
  const int64_t rounds = seeds ? 0 : argc > 1 ? std::atoll(argv[1]) : 5000;
  std::mt19937 random(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1);
  std::vector<Files> whole;
  for (const char* head : {"sequence_classification", "token_classification", "encoder", "masked_lm"}) {
    Sizes sizes;
    sizes.hidden = 8, sizes.heads = 4, sizes.intermediate = 16, sizes.positions = 5, sizes.layers = 1, sizes.vocabulary = 7;
    sizes.head = head;
    whole.push_back(synthetic(sizes));
    try_load(whole.back().config, whole.back().tensors);
    if (seeds) {
      const std::string& config = whole.back().config;
      const auto size = static_cast<uint32_t>(config.size());
      const std::string first = {static_cast<char>(size), static_cast<char>(size >> 8), static_cast<char>(size >> 16), static_cast<char>(size >> 24)};
      std::ofstream file(std::string(argv[2]) + "/" + head, std::ios::binary);
      file << first << config << whole.back().tensors;
      CHECK(file.flush(), "%s/%s cannot be written", argv[2], head);
    }
  }
  CHECK(accepted == 4, "%lld of 4 whole files accepted", static_cast<long long>(accepted));
  for (int64_t i = 0; i < rounds; ++i) {
    Files files = whole[static_cast<size_t>(i % 4)];
    for (unsigned n = random() % 4 + 1; n > 0 && files.tensors.size() > header_end(files.tensors) + 4; --n)
      switch (random() % 8) {
        case 0: mutate_text(random, files.config, files.config.size()); break;
        case 1: mutate_text(random, files.tensors, files.tensors.size()); break;
        case 2:
        case 3: mutate_value(random, files.tensors); break;
        case 4: mutate_digit(random, files.tensors); break;
        default: mutate_text(random, files.tensors, header_end(files.tensors)); break;
      }
    try_load(files.config, files.tensors);
  }
  const int64_t ran = accepted - 4;
  std::printf("%lld of %lld mutated files accepted and run\n", static_cast<long long>(ran), static_cast<long long>(rounds));
  // Both ways are taken: a reader that refused all, or none, would prove little.
  CHECK(rounds < 100 || (ran > rounds / 100 && ran < rounds / 2), "%lld of %lld", static_cast<long long>(ran), static_cast<long long>(rounds));
  return finish();
}

#endif
