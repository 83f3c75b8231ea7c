// The formula of ops/embedding.h, one value at a time.
#include "ops/reference.h"
#include "ops/reference_math.h"

namespace sqb::reference {

void embedding(const EmbeddingCall& call) {
  const EmbeddingTables& t = *call.tables;
  for (int r = 0; r < call.rows; ++r) {
    const ptrdiff_t id = call.ids[r], place = call.positions[r], type = call.types ? call.types[r] : 0;
    for (int c = 0; c < t.channels; ++c)
      call.y[r * call.y_stride + c] =
          mul_add(static_cast<float>(t.word[id * t.channels + c]), t.word_scale[id],
                   mul_add(static_cast<float>(t.position[place * t.channels + c]), t.position_scale[place],
                            t.type[type * t.channels + c]));
  }
}

}  // namespace sqb::reference
