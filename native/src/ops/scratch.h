// Memory of a thread for one operation at a time, kept for the next: kernels' files must not allocate (they would emit
// the library's inline functions for their own instruction set).
#pragma once

#include <cstddef>
#include <cstdint>

namespace sqb {

// At least `bytes`, on a 64-byte border; what an earlier call returned to this thread is no longer valid.
uint8_t* thread_scratch(size_t bytes);

}  // namespace sqb
