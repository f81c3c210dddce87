// The input journal of live monitoring, writing side: records gather in a block, a block goes to the file in one piece.
// The layout is that of microrisk/spec/journal.py.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "microrisk/spec.hpp"

namespace microrisk {

// CRC-32 of zlib: continues `crc` (0 at the beginning) over the bytes.
std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size) noexcept;

// A number that one thread writes and others may read at any time.
class Tally {
 public:
  Tally() = default;
  explicit Tally(std::uint64_t n) noexcept : value_(n) {}
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }
  void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  void add(std::uint64_t n) noexcept { set(get() + n); }
  void raise(std::uint64_t n) noexcept {
    if (n > get()) set(n);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// One record as it lies in a block.
struct Record {
  std::uint16_t feed = 0;
  journal::Kind kind{};
  std::uint8_t flags = 0;
  std::int64_t recv_ns = 0;
  std::uint64_t seq = 0;
  const std::uint8_t* body = nullptr;
  std::size_t size = 0;  // of the body, bytes
};

// Reads the records of a payload in order; ends at the first that is not whole.
class Records {
 public:
  explicit Records(std::span<const std::uint8_t> payload) noexcept : payload_(payload) {}
  bool next(Record& out) noexcept;

 private:
  std::span<const std::uint8_t> payload_;
  std::size_t offset_ = 0;
};

class Journal {
 public:
  // `fd` stays the caller's. `number`: of the next block; `crc`: of the block before.
  explicit Journal(int fd, std::uint64_t number = 0, std::uint32_t crc = 0);
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Into the block in the making. std::length_error when the body or the block would be too long; nothing is kept then.
  void append(const Record& record);
  // More bytes for the body of the record appended last.
  void extend(const std::uint8_t* data, std::size_t size);
  // Whether records with `bytes` in all (headers included) still fit into the block.
  bool room(std::size_t bytes) const noexcept { return payload_bytes() + bytes <= journal::MAX_PAYLOAD; }

  // Writes the block; bytes written, 0 when it is empty. std::system_error when it cannot: the file is cut back to its
  // last whole block and the records stay pending.
  std::size_t flush();
  // Records of the block flushed last, until the next append.
  std::span<const std::uint8_t> flushed() const noexcept;
  // Goes on in another file; std::logic_error when records are pending.
  void change_file(int fd);

  std::uint64_t number() const noexcept { return number_.get(); }
  std::uint32_t crc() const noexcept { return static_cast<std::uint32_t>(crc_.get()); }
  std::uint64_t written_bytes() const noexcept { return written_.get(); }
  std::uint64_t pending_records() const noexcept { return records_.get(); }

 private:
  std::size_t payload_bytes() const noexcept { return pending_ ? block_.size() - journal::BLOCK_HEADER_BYTES : 0; }
  void begin();
  void seal() noexcept;
  void write_all(const std::uint8_t* data, std::size_t size);
  void cut_back() noexcept;

  int fd_;
  std::vector<std::uint8_t> block_;  // header and payload
  std::size_t last_ = 0;             // offset of the record appended last
  bool pending_ = false;             // the block waits to be written; otherwise it was
  std::int64_t end_ = -1;            // of the last whole block in the file; -1: no file that can be cut
  bool torn_ = false;                // bytes behind `end_` could not be cut off
  Tally number_, crc_, written_, records_;
};

}  // namespace microrisk
