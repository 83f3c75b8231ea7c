// The formula of ops/embedding.h on sixteen floats.
#pragma once

#include "ops/embedding.h"
#include "simd/f32x16.h"

namespace sqb {
namespace {

inline void embed_rows(const EmbeddingCall& call) {
  const EmbeddingTables& t = *call.tables;
  const int n = t.channels, whole = n / 16 * 16;
  for (int r = 0; r < call.rows; ++r) {
    const ptrdiff_t id = call.ids[r], place = call.positions[r], type = call.types ? call.types[r] : 0;
    const int8_t* word = t.word + id * n;
    const int8_t* position = t.position + place * n;
    const float* kind = t.type + type * n;
    float* y = call.y + r * call.y_stride;
    const F32x16 word_scale = set1(t.word_scale[id]), position_scale = set1(t.position_scale[place]);
    for (int i = 0; i < whole; i += 16)
      store(y + i, fma(load_int8(word + i), word_scale, fma(load_int8(position + i), position_scale, load(kind + i))));
    if (whole < n) {  // the tables end with the file: not a byte beyond may be read
      const int tail = n - whole;
      int8_t word_tail[16] = {}, position_tail[16] = {};
      std::memcpy(word_tail, word + whole, static_cast<size_t>(tail));
      std::memcpy(position_tail, position + whole, static_cast<size_t>(tail));
      store_first(y + whole,
                  fma(load_int8(word_tail), word_scale,
                      fma(load_int8(position_tail), position_scale, load_first(kind + whole, tail))),
                  tail);
    }
  }
}

}  // namespace
}  // namespace sqb
