#include "ops/scratch.h"

#include "aligned.h"

namespace sqb {

uint8_t* thread_scratch(size_t bytes) {
  thread_local AlignedBuffer<uint8_t> buffer;
  if (buffer.size() < bytes) buffer = AlignedBuffer<uint8_t>(bytes);
  return buffer.data();
}

}  // namespace sqb
