// Blocks of 2^k bytes cut from large pages, with a free list a size. What one book outgrows, another one takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "microrisk/memory.hpp"

namespace microrisk {

class Slab {
 public:
  explicit Slab(std::uint64_t* growths) noexcept : growths_(growths) {}
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() {
    for (void* chunk : chunks_) std::free(chunk);
  }

  // Aligned to min(2^log2, 64) bytes; not initialised. Throws std::bad_alloc.
  void* take(unsigned log2) {
    Link*& head = free_[log2];
    if (head == nullptr) return fresh(std::size_t{1} << log2);
    Link* block = head;
    head = block->next;
    return block;
  }
  void give(void* block, unsigned log2) noexcept {
    auto* link = static_cast<Link*>(block);
    link->next = free_[log2];
    free_[log2] = link;
  }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Link {
    Link* next;
  };
  static constexpr std::size_t FIRST_CHUNK = std::size_t{1} << 16, LARGEST_CHUNK = std::size_t{1} << 22;

  [[gnu::noinline]] void* fresh(std::size_t size) {
    const std::size_t aligned = (at_ + 63) & ~std::size_t{63};
    if (chunks_.empty() || aligned + size > end_) return chunk(size);
    at_ = aligned + size;
    return static_cast<char*>(chunks_.back()) + aligned;
  }

  void* chunk(std::size_t size) {
    std::size_t n = bytes_ < FIRST_CHUNK ? FIRST_CHUNK : bytes_;  // about doubling, then steps of LARGEST_CHUNK
    if (n > LARGEST_CHUNK) n = LARGEST_CHUNK;
    if (n < size) n = size;
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(allocate_block(n));
    bytes_ += n;
    end_ = n;
    at_ = size;
    if (growths_ != nullptr) ++*growths_;
    return chunks_.back();
  }

  std::array<Link*, 48> free_{};
  std::vector<void*> chunks_;
  std::size_t at_ = 0, end_ = 0, bytes_ = 0;
  std::uint64_t* growths_;
};

}  // namespace microrisk
