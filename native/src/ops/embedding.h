// Sum of three embeddings, word and position stored as int8 rows with a scale:
//     y[n, c] = fma(float(word[id, c]), word_scale[id], fma(float(position[p, c]), position_scale[p], type[t, c]))
// Ids are in range: the caller has checked them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sqb {

struct EmbeddingTables {
  const int8_t* word;
  const float* word_scale;
  const int8_t* position;
  const float* position_scale;
  const float* type;
  int channels;
};
struct EmbeddingCall {
  const EmbeddingTables* tables;
  const int32_t* ids;
  const int32_t* types;  // null: all 0
  const int32_t* positions;
  int rows;
  float* y;
  ptrdiff_t y_stride;
};
using EmbeddingFn = void(const EmbeddingCall& call);

}  // namespace sqb
