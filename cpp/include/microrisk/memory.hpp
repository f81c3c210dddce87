// Growing blocks of plain records. Every growth is counted, so that "no allocation after warm-up" can be tested.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace microrisk {

// `a` when `first`, else `b`, without a branch: which one it is depends on data that no predictor knows.
template <class T>
inline T* pick(bool first, T* a, T* b) noexcept {
  const std::uintptr_t mask = std::uintptr_t{0} - first;
  const std::uintptr_t at =
      (reinterpret_cast<std::uintptr_t>(a) & mask) | (reinterpret_cast<std::uintptr_t>(b) & ~mask);
  return reinterpret_cast<T*>(at);
}

// Blocks from this size on are aligned to 2 MiB and offered to the kernel as huge pages: order lookups are random
// accesses over tens of megabytes, and on 4 KiB pages each would miss the TLB too.
inline constexpr std::size_t HUGE_PAGE = std::size_t{1} << 21;

inline void* allocate_block(std::size_t bytes) {
  const std::size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
  const std::size_t rounded = (bytes + align - 1) / align * align;
  void* block = std::aligned_alloc(align, rounded);
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (align == HUGE_PAGE) (void)madvise(block, rounded, MADV_HUGEPAGE);
#endif
  return block;
}

// Blocks of a Pool: from MAPPED bytes on they are mappings of their own, whole large pages.
inline constexpr std::size_t MAPPED = 2 * HUGE_PAGE;
// A block of `bytes` with the first `used` bytes of `old`, which is gone. Throws std::bad_alloc, and `old` stays.
void* move_block(void* old, std::size_t old_bytes, std::size_t bytes, std::size_t used);
void free_block(void* block, std::size_t bytes) noexcept;

// A vector of trivially copyable records: doubles when full, keeps its capacity when emptied, counts its growths.
template <class T>
class Arena {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Arena() = default;
  explicit Arena(std::uint64_t* growths) noexcept : growths_(growths) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { std::free(data_); }

  void count_into(std::uint64_t* growths) noexcept { growths_ = growths; }

  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return capacity_; }
  bool empty() const noexcept { return size_ == 0; }
  T& back() noexcept { return data_[size_ - 1]; }
  const T& back() const noexcept { return data_[size_ - 1]; }
  void clear() noexcept { size_ = 0; }

  void reserve(std::size_t n) {
    if (n > capacity_) grow(n);
  }

  void push(const T& value) {
    if (size_ == capacity_) grow_for_one();
    std::memcpy(static_cast<void*>(data_ + size_), &value, sizeof(T));
    ++size_;
  }

  // New records are zero bytes.
  void resize(std::size_t n) {
    if (n > capacity_) grow(n > 2 * capacity_ ? n : 2 * capacity_);  // doubling: exact growth would be quadratic
    if (n > size_) std::memset(static_cast<void*>(data_ + size_), 0, (n - size_) * sizeof(T));
    size_ = n;
  }

  // Room for `n` new records, which are not set; for callers that write all of them at once.
  T* extend(std::size_t n) {
    if (size_ + n > capacity_) grow(size_ + n > 2 * capacity_ ? size_ + n : 2 * capacity_);
    size_ += n;
    return data_ + size_ - n;
  }

  void insert(std::size_t at, const T& value) {
    if (size_ == capacity_) grow_for_one();
    std::memmove(static_cast<void*>(data_ + at + 1), data_ + at, (size_ - at) * sizeof(T));
    std::memcpy(static_cast<void*>(data_ + at), &value, sizeof(T));
    ++size_;
  }

  void erase(std::size_t at) noexcept {
    --size_;
    std::memmove(static_cast<void*>(data_ + at), data_ + at + 1, (size_ - at) * sizeof(T));
  }

  void swap(Arena& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(growths_, other.growths_);
  }

  // Hands the block over; the caller frees it with std::free.
  T* release() noexcept {
    size_ = capacity_ = 0;
    return std::exchange(data_, nullptr);
  }

 private:
  [[gnu::noinline]] void grow_for_one() { grow(capacity_ == 0 ? 16 : 2 * capacity_); }

  [[gnu::noinline]] void grow(std::size_t n) {
    T* bigger = static_cast<T*>(allocate_block(n * sizeof(T)));
    if (size_ > 0) std::memcpy(static_cast<void*>(bigger), data_, size_ * sizeof(T));
    std::free(data_);
    data_ = bigger;
    capacity_ = n;
    if (growths_ != nullptr) ++*growths_;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::uint64_t* growths_ = nullptr;
};

// Records that stay in one block however many they become: on Linux a full block moves by its page tables, not by its
// bytes, so that growth costs microseconds. Elsewhere, and for small blocks, it is copied. Never shrinks.
template <class T>
class Pool {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Pool(std::uint64_t* growths) noexcept : growths_(growths) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { free_block(data_, capacity_ * sizeof(T)); }

  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  std::size_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return capacity_ * sizeof(T); }

  void reserve(std::size_t n) {
    if (n > capacity_) grow(n);
  }
  // A new record at the end, not initialised; its index.
  std::size_t extend() {
    if (size_ == capacity_) [[unlikely]]
      grow(capacity_ == 0 ? 16 : 2 * capacity_);
    return size_++;
  }

 private:
  [[gnu::noinline]] void grow(std::size_t n) {
    const std::size_t old = capacity_ * sizeof(T);
    std::size_t bytes = n * sizeof(T);
    if (bytes >= MAPPED) bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    data_ = static_cast<T*>(move_block(data_, old, bytes, size_ * sizeof(T)));
    capacity_ = bytes / sizeof(T);
    if (growths_ != nullptr) ++*growths_;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::uint64_t* growths_;
};

}  // namespace microrisk
