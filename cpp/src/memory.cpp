#include "microrisk/memory.hpp"

namespace microrisk {

namespace {

#if defined(__linux__)
// An aligned, empty range of addresses; mappings may be laid over it.
void* address_range(std::size_t bytes) {
  const std::size_t wide = bytes + HUGE_PAGE;
  void* range = mmap(nullptr, wide, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) throw std::bad_alloc();
  auto* from = static_cast<char*>(range);
  const std::size_t lead = (HUGE_PAGE - reinterpret_cast<std::uintptr_t>(range) % HUGE_PAGE) % HUGE_PAGE;
  if (lead > 0) munmap(from, lead);
  munmap(from + lead + bytes, wide - lead - bytes);
  return from + lead;
}

void* map_block(std::size_t bytes) {
  void* at = address_range(bytes);
  if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0) {
    munmap(at, bytes);
    throw std::bad_alloc();
  }
  (void)madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

// The pages of `old` at a new place with room behind them.
void* remap_block(void* old, std::size_t old_bytes, std::size_t bytes) {
  void* at = map_block(bytes);
  if (mremap(old, old_bytes, old_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) {
    munmap(at, bytes);
    throw std::bad_alloc();
  }
  return at;
}
#endif

void* plain_block(std::size_t bytes) {
  void* block = std::malloc(bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace

#if defined(__linux__)
void* move_block(void* old, std::size_t old_bytes, std::size_t bytes, std::size_t used) {
  if (old_bytes >= MAPPED) return remap_block(old, old_bytes, bytes);
  void* block = bytes >= MAPPED ? map_block(bytes) : plain_block(bytes);
  if (used > 0) std::memcpy(block, old, used);
  std::free(old);
  return block;
}

void free_block(void* block, std::size_t bytes) noexcept {
  if (bytes >= MAPPED) {
    munmap(block, bytes);
  } else {
    std::free(block);
  }
}
#else
void* move_block(void* old, std::size_t, std::size_t bytes, std::size_t used) {
  void* block = plain_block(bytes);
  if (used > 0) std::memcpy(block, old, used);
  std::free(old);
  return block;
}

void free_block(void* block, std::size_t) noexcept {
  std::free(block);
}
#endif

}  // namespace microrisk
