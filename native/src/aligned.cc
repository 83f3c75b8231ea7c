#include "aligned.h"

#include <algorithm>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sqb {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kBlock = size_t{8} << 20;

}  // namespace

AlignedBlock::AlignedBlock(size_t bytes) : size((bytes + kHugePage - 1) / kHugePage * kHugePage) {
#if defined(_WIN32)
  data = static_cast<uint8_t*>(_aligned_malloc(size, kHugePage));
#else
  data = static_cast<uint8_t*>(std::aligned_alloc(kHugePage, size));
#endif
  if (data == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  ::madvise(data, size, MADV_HUGEPAGE);
#endif
}

AlignedBlock::~AlignedBlock() {
#if defined(_WIN32)
  _aligned_free(data);
#else
  std::free(data);
#endif
}

uint8_t* Arena::take(size_t bytes) {
  bytes = (bytes + 127) / 64 * 64;
  if (blocks_.empty() || blocks_.back().size - used_ < bytes) {
    blocks_.emplace_back(std::max(bytes, kBlock));
    used_ = 0;
  }
  uint8_t* piece = blocks_.back().data + used_;
  used_ += bytes;
  return piece;
}

}  // namespace sqb
