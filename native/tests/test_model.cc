// The whole model: the same bits on every instruction set, alone or in a batch, in any order, with any number of
// threads, and from many callers at once; and clear errors for bad batches.
#include <algorithm>
#include <numeric>
#include <thread>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "synthetic.h"

using namespace sqb;

namespace {

std::vector<int32_t> token_counts = {1, 2, 3, 5, 15, 17, 31, 33, 127, 129, 512, 1, 8, 8, 8, 300};
// Sequences that two, three, four or seven threads take apart: two runs each, one run of several blocks, many short texts.
const std::vector<int32_t> like_counts[] = {{128, 128, 128, 128, 100, 28, 128, 128, 64, 64},
                                            {300, 120, 4, 155, 130, 290},
                                            {512, 512},
                                            std::vector<int32_t>(49, 20)};
int masked_tokens = 512;  // of the long texts in test_masked: more than one pass
int calls = 20;           // of each caller in test_callers

struct Result {
  std::vector<float> logits, pooled, mean, hidden;
  bool operator==(const Result& other) const {
    return logits == other.logits && pooled == other.pooled && mean == other.mean && hidden == other.hidden;
  }
};

struct Texts {
  std::vector<int32_t> lengths, ids, types;
  Texts(const std::vector<int32_t>& sizes, int vocabulary) : lengths(sizes) {
    std::mt19937 random(9);
    for (const int32_t length : sizes)
      for (int32_t t = 0; t < length; ++t) {
        ids.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(vocabulary)));
        types.push_back(t > length / 2);
      }
  }
  size_t start(size_t sequence) const { return static_cast<size_t>(std::accumulate(lengths.begin(), lengths.begin() + static_cast<ptrdiff_t>(sequence), 0)); }
};

Result run(Model& model, const int32_t* ids, const int32_t* types, const std::vector<int32_t>& lengths) {
  const auto tokens = static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), 0));
  const auto channels = static_cast<size_t>(model.config().hidden_size), labels = static_cast<size_t>(model.config().num_labels);
  Result r{std::vector<float>(lengths.size() * labels), std::vector<float>(lengths.size() * channels),
           std::vector<float>(lengths.size() * channels), std::vector<float>(tokens * channels)};
  model.run({ids, types, lengths.data(), static_cast<int>(lengths.size())}, {r.logits.data(), r.pooled.data(), r.mean.data(), r.hidden.data()});
  return r;
}

void test_equal(const Sizes& sizes, const char* name, const std::vector<int32_t>& counts) {
  const Files files = synthetic(sizes);
  const Texts texts(counts, sizes.vocabulary);
  const auto& all = available_kernels();
  for (const Kernels* kernels : all) CHECK(enable(*kernels), "%s is refused", kernels->name);
  const auto reference = load(files, *all.back(), 1);
  const Result want = run(*reference, texts.ids.data(), texts.types.data(), texts.lengths);
  for (const float v : want.hidden) CHECK(std::isfinite(v), "%s: not finite", name);
  for (const Kernels* kernels : all)
    for (const int threads : {1, 2, 3, 4, 7}) {
      if (kernels == all.back() && threads == 1) continue;  // gave what is wanted
      const auto model = load(files, *kernels, threads);
      CHECK(run(*model, texts.ids.data(), texts.types.data(), texts.lengths) == want, "%s: %s with %d threads", name, kernels->name, threads);
      if (kernels == all.back()) continue;
      // Alone, and in the reverse order.
      const auto channels = static_cast<size_t>(sizes.hidden);
      std::vector<int32_t> back_lengths(texts.lengths.rbegin(), texts.lengths.rend()), back_ids, back_types;
      for (size_t s = texts.lengths.size(); s-- > 0;) {
        const size_t start = texts.start(s), length = static_cast<size_t>(texts.lengths[s]);
        const Result alone = run(*model, texts.ids.data() + start, texts.types.data() + start, {texts.lengths[s]});
        CHECK(std::equal(alone.hidden.begin(), alone.hidden.end(), want.hidden.begin() + static_cast<ptrdiff_t>(start * channels)),
              "%s: %s, sequence %zu alone", name, kernels->name, s);
        CHECK(std::equal(alone.logits.begin(), alone.logits.end(), want.logits.begin() + static_cast<ptrdiff_t>(s * static_cast<size_t>(sizes.labels))),
              "%s: %s, logits of sequence %zu alone", name, kernels->name, s);
        back_ids.insert(back_ids.end(), texts.ids.begin() + static_cast<ptrdiff_t>(start), texts.ids.begin() + static_cast<ptrdiff_t>(start + length));
        back_types.insert(back_types.end(), texts.types.begin() + static_cast<ptrdiff_t>(start), texts.types.begin() + static_cast<ptrdiff_t>(start + length));
      }
      const Result back = run(*model, back_ids.data(), back_types.data(), back_lengths);
      for (size_t s = 0; s < texts.lengths.size(); ++s) {
        const size_t other = texts.lengths.size() - 1 - s, labels = static_cast<size_t>(sizes.labels);
        CHECK(std::equal(back.logits.begin() + static_cast<ptrdiff_t>(other * labels), back.logits.begin() + static_cast<ptrdiff_t>((other + 1) * labels),
                         want.logits.begin() + static_cast<ptrdiff_t>(s * labels)),
              "%s: reverse order, sequence %zu", name, s);
      }
    }
}

std::vector<float> run_masked(Model& model, const Texts& texts, const std::vector<int32_t>& positions) {
  std::vector<float> logits(positions.size() * static_cast<size_t>(model.config().vocab_size));
  model.run_masked({texts.ids.data(), texts.types.data(), texts.lengths.data(), static_cast<int>(texts.lengths.size())},
                   {positions.data(), static_cast<int>(positions.size()), logits.data()});
  return logits;
}

void test_masked() {
  Sizes sizes;
  sizes.head = "masked_lm", sizes.vocabulary = 600, sizes.padding = 7;
  const Files files = synthetic(sizes);
  const Texts texts({5, masked_tokens, masked_tokens, masked_tokens, 9}, sizes.vocabulary);
  const auto tokens = static_cast<int32_t>(texts.ids.size());
  const std::vector<int32_t> positions = {tokens - 1, 0, 4, 5, tokens / 2, tokens - 9, 0};
  const auto& all = available_kernels();
  for (const Kernels* kernels : all) CHECK(enable(*kernels), "%s is refused", kernels->name);
  const std::vector<float> want = run_masked(*load(files, *all.back(), 1), texts, positions);
  const size_t words = static_cast<size_t>(sizes.vocabulary);
  for (size_t i = 0; i < want.size(); ++i)
    CHECK(i % words < words - 7 ? std::isfinite(want[i]) : want[i] == -INFINITY, "logit %zu is %g", i, static_cast<double>(want[i]));
  for (const Kernels* kernels : all)
    for (const int threads : {1, 3}) {
      const auto model = load(files, *kernels, threads);
      CHECK(run_masked(*model, texts, positions) == want, "masked: %s with %d threads", kernels->name, threads);
      const std::vector<float> alone = run_masked(*model, texts, {tokens / 2});
      CHECK(std::equal(alone.begin(), alone.end(), want.begin() + static_cast<ptrdiff_t>(4 * words)), "masked: %s, a place alone", kernels->name);
    }
  const auto model = load(files, *all.front(), 1);
  const std::string message = "outside the batch of " + std::to_string(tokens) + " tokens";
  for (const int32_t outside : {-1, tokens}) {
    try {
      run_masked(*model, texts, {0, outside});
      CHECK(false, "position %d is accepted", outside);
    } catch (const InputError& error) {
      CHECK(std::strstr(error.what(), message.c_str()) != nullptr, "'%s'", error.what());
    }
  }
  try {
    run_masked(*load(synthetic({}), *all.front(), 1), texts, {0});
    CHECK(false, "a classifier fills gaps");
  } catch (const InputError& error) {
    CHECK(std::strstr(error.what(), "no masked language model") != nullptr, "'%s'", error.what());
  }
}

void test_callers() {
  const Sizes sizes;
  const Files files = synthetic(sizes);
  const auto model = load(files, best_kernels(), 2);
  const Texts texts({3, 40, 17, 128}, sizes.vocabulary);
  const Result want = run(*model, texts.ids.data(), texts.types.data(), texts.lengths);
  std::vector<std::thread> callers;
  std::vector<int> same(8);
  for (size_t i = 0; i < same.size(); ++i)
    callers.emplace_back([&, i] {
      for (int n = 0; n < calls; ++n) same[i] += run(*model, texts.ids.data(), texts.types.data(), texts.lengths) == want;
    });
  for (auto& caller : callers) caller.join();
  for (const int count : same) CHECK(count == calls, "%d of %d equal", count, calls);
}

#if !defined(_WIN32)
// A process that was forked off has none of the team's threads: it computes alone, and frees the model without waiting.
void test_forked() {
  const Sizes sizes;
  const Files files = synthetic(sizes);
  auto model = load(files, best_kernels(), 3);
  const Texts texts({3, 40, 17}, sizes.vocabulary);
  const Result want = run(*model, texts.ids.data(), texts.types.data(), texts.lengths);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // where it hangs
    const bool same = run(*model, texts.ids.data(), texts.types.data(), texts.lengths) == want;
    model.reset();
    _exit(same ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the forked process ended with status %d", status);
  CHECK(run(*model, texts.ids.data(), texts.types.data(), texts.lengths) == want, "after a fork");
}
#endif

void expect_error(Model& model, const std::vector<int32_t>& ids, const std::vector<int32_t>& lengths, const char* part) {
  std::vector<float> logits(100);
  try {
    model.run({ids.data(), nullptr, lengths.data(), static_cast<int>(lengths.size())}, {logits.data(), nullptr, nullptr, nullptr});
    CHECK(false, "no error with '%s'", part);
  } catch (const InputError& error) {
    CHECK(std::string(error.what()).find(part) != std::string::npos, "'%s' lacks '%s'", error.what(), part);
  }
}

void test_errors() {
  const auto model = load(synthetic({}), best_kernels(), 1);
  expect_error(*model, {1}, {0}, "has 0 tokens");
  expect_error(*model, {1}, {-4}, "has -4 tokens");
  expect_error(*model, {1}, {531}, "has 531 tokens");
  expect_error(*model, {1}, {1000000}, "takes 1 to 530");
  expect_error(*model, {1, 37}, {1, 1}, "sequence 1, token 0: id 37");
  expect_error(*model, {-1}, {1}, "id -1");
  std::vector<float> logits;
  model->run({nullptr, nullptr, nullptr, 0}, {logits.data(), nullptr, nullptr, nullptr});
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;  // for emulators
  if (quick) token_counts = {1, 5, 17, 33}, masked_tokens = 9, calls = 2;
  test_equal({}, "tiny", token_counts);
  Sizes unequal;
  unequal.q = unequal.k = unequal.v = unequal.post = 2, unequal.wide = 4, unequal.out = 1;
  test_equal(unequal, "groups 2,2,2,2,4,1", token_counts);
  Sizes odd;
  odd.hidden = 60, odd.heads = 5, odd.q = 2, odd.k = 3, odd.v = 5, odd.post = 2, odd.wide = 3, odd.out = 6, odd.intermediate = 66;
  test_equal(odd, "odd", token_counts);
  for (const char* activation : {"relu", "silu", "gelu_new"}) {
    Sizes other;
    other.activation = activation;
    test_equal(other, activation, token_counts);
  }
  Sizes small;
  small.hidden = 384, small.heads = 12, small.intermediate = 1536, small.layers = 1;
  if (!quick) test_equal(small, "hidden 384", token_counts);
  Sizes pieces;  // two of the context, of three heads and two blocks
  pieces.hidden = 96, pieces.heads = 6, pieces.q = pieces.k = pieces.v = 1, pieces.post = 4;
  for (const Sizes& each : {Sizes(), unequal, odd, pieces})
    for (const auto& counts : like_counts)
      if (!quick) test_equal(each, "texts of like length", counts);
  test_masked();
  test_callers();
#if !defined(_WIN32)
  test_forked();
#endif
  test_errors();
  return finish();
}
