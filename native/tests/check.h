// A few lines in place of a test library.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

inline int& failures() {
  static int count = 0;
  return count;
}

#define CHECK(condition, ...)                                        \
  do {                                                               \
    if (!(condition)) {                                              \
      if (++failures() <= 20) {                                      \
        std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);  \
        std::printf(__VA_ARGS__);                                    \
        std::printf("\n");                                           \
      }                                                              \
    }                                                                \
  } while (false)

inline int finish() {
  std::printf(failures() ? "%d FAILED\n" : "passed\n", failures());
  return failures() ? 1 : 0;
}

inline std::vector<float> draw(std::mt19937& random, size_t count, float deviation = 1.0f) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline std::vector<int8_t> draw_int8(std::mt19937& random, size_t count) {
  std::uniform_int_distribution<int> uniform(-127, 127);
  std::vector<int8_t> values(count);
  for (int8_t& value : values) value = static_cast<int8_t>(uniform(random));
  return values;
}

// Number of values whose bits differ; the first is reported.
inline size_t differing(const char* what, const std::vector<float>& got, const std::vector<float>& want) {
  size_t count = 0;
  for (size_t i = 0; i < want.size(); ++i)
    if (std::memcmp(&got[i], &want[i], 4) != 0 && count++ == 0)
      std::printf("%s: element %zu is %.9g, not %.9g\n", what, i, static_cast<double>(got[i]), static_cast<double>(want[i]));
  return count;
}
