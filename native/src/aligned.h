// Memory on 64-byte borders: a cache line, and the widest vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace sqb {

struct AlignedBlock {
  explicit AlignedBlock(size_t size);
  AlignedBlock(AlignedBlock&& other) noexcept : data(std::exchange(other.data, nullptr)), size(other.size) {}
  AlignedBlock& operator=(AlignedBlock&&) = delete;
  ~AlignedBlock();
  uint8_t* data;
  size_t size;
};

// Fixed-size array of trivial T; zeroed. Padded to whole cache lines and one more, so that a vector load at any element
// stays inside.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t count) : count_(count) {
    if (count > (static_cast<size_t>(-1) / 4) / sizeof(T)) throw std::bad_alloc();
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64 + 64;
#if defined(_WIN32)
    data_ = static_cast<T*>(_aligned_malloc(bytes, 64));
#else
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
#endif
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(static_cast<void*>(data_), 0, bytes);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~AlignedBuffer() {
#if defined(_WIN32)
    _aligned_free(data_);
#else
    std::free(data_);
#endif
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

// Memory for weights: pieces of a few large blocks, on pages of two megabytes where the system grants them, since a pass walks
// through all of it.
class Arena {
 public:
  // Uninitialised, on a 64-byte border, followed by at least 64 bytes that may be read; lives as long as the arena.
  uint8_t* take(size_t bytes);

 private:
  std::vector<AlignedBlock> blocks_;
  size_t used_ = 0;
};

}  // namespace sqb
