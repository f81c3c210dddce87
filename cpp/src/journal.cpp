#include "microrisk/journal.hpp"

#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

#include "bytes.hpp"

namespace microrisk {

namespace {

using journal::BLOCK_HEADER_BYTES, journal::RECORD_HEADER_BYTES;

template <class T>
void put(std::uint8_t* to, T value) noexcept {
  std::memcpy(to, &value, sizeof(T));
}

// Offsets of the fields.
constexpr std::size_t PAYLOAD_AT = 4, NUMBER_AT = 8, RECORDS_AT = 16, CRC_AT = 20;
constexpr std::size_t FEED_AT = 4, KIND_AT = 6, FLAGS_AT = 7, RECV_AT = 8, SEQ_AT = 16;
static_assert(CRC_AT + 4 == BLOCK_HEADER_BYTES && SEQ_AT + 8 == RECORD_HEADER_BYTES);

void require_body(std::size_t size) {
  if (size > journal::MAX_BODY) {
    throw std::length_error("a record's body of " + std::to_string(size) + " bytes: at most " +
                            std::to_string(journal::MAX_BODY));
  }
}

}  // namespace

bool Records::next(Record& out) noexcept {
  const std::size_t there = payload_.size() - offset_;
  if (there < RECORD_HEADER_BYTES) return false;
  const std::uint8_t* head = payload_.data() + offset_;
  const std::size_t size = le<4>(head);
  if (size < RECORD_HEADER_BYTES || size > there) return false;
  out = Record{static_cast<std::uint16_t>(le<2>(head + FEED_AT)),
               static_cast<journal::Kind>(head[KIND_AT]),
               head[FLAGS_AT],
               static_cast<std::int64_t>(le<8>(head + RECV_AT)),
               le<8>(head + SEQ_AT),
               head + RECORD_HEADER_BYTES,
               size - RECORD_HEADER_BYTES};
  offset_ += size;
  return true;
}

Journal::Journal(int fd, std::uint64_t number, std::uint32_t crc)
    : fd_(fd), end_(lseek(fd, 0, SEEK_END)), number_(number), crc_(crc) {
  block_.reserve(std::size_t{1} << 20);
  block_.resize(BLOCK_HEADER_BYTES);
}

void Journal::begin() {
  if (pending_) return;
  block_.resize(BLOCK_HEADER_BYTES);
  pending_ = true;
}

void Journal::append(const Record& record) {
  require_body(record.size);
  const std::size_t size = RECORD_HEADER_BYTES + record.size;
  if (!room(size)) throw std::length_error("the block is full: flush it first");
  begin();
  last_ = block_.size();
  block_.resize(last_ + size);
  std::uint8_t* head = block_.data() + last_;
  put(head, static_cast<std::uint32_t>(size));
  put(head + FEED_AT, record.feed);
  head[KIND_AT] = static_cast<std::uint8_t>(record.kind);
  head[FLAGS_AT] = record.flags;
  put(head + RECV_AT, record.recv_ns);
  put(head + SEQ_AT, record.seq);
  if (record.size > 0) std::memcpy(head + RECORD_HEADER_BYTES, record.body, record.size);
  records_.add(1);
}

void Journal::extend(const std::uint8_t* data, std::size_t size) {
  const std::size_t now = block_.size() - last_;
  require_body(now - RECORD_HEADER_BYTES + size);
  if (!room(size)) throw std::length_error("the block is full: flush it first");
  block_.insert(block_.end(), data, data + size);
  put(block_.data() + last_, static_cast<std::uint32_t>(now + size));
}

std::span<const std::uint8_t> Journal::flushed() const noexcept {
  if (pending_) return {};
  return std::span(block_).subspan(BLOCK_HEADER_BYTES);
}

// Fills the header; the chain value goes into the file only, until the block is written.
void Journal::seal() noexcept {
  std::uint8_t* head = block_.data();
  put(head, journal::BLOCK_MAGIC);
  put(head + PAYLOAD_AT, static_cast<std::uint32_t>(payload_bytes()));
  put(head + NUMBER_AT, number());
  put(head + RECORDS_AT, static_cast<std::uint32_t>(pending_records()));
  std::uint8_t before[4];
  put(before, crc());
  std::uint32_t sum = crc32(0, before, sizeof(before));
  sum = crc32(sum, head, CRC_AT);
  put(head + CRC_AT, crc32(sum, head + BLOCK_HEADER_BYTES, payload_bytes()));
}

std::size_t Journal::flush() {
  if (!pending_) {
    block_.resize(BLOCK_HEADER_BYTES);
    return 0;
  }
  if (torn_) cut_back();
  if (torn_) throw std::system_error(EIO, std::generic_category(), "the journal's torn end cannot be cut off");
  seal();
  write_all(block_.data(), block_.size());
  pending_ = false;
  if (end_ >= 0) end_ += static_cast<std::int64_t>(block_.size());
  crc_.set(le<4>(block_.data() + CRC_AT));
  number_.add(1);
  records_.set(0);
  written_.add(block_.size());
  return block_.size();
}

void Journal::write_all(const std::uint8_t* data, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::write(fd_, data + done, size - done);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    const int why = n < 0 ? errno : EIO;
    if (done > 0) cut_back();
    throw std::system_error(why, std::generic_category(), "the journal cannot be written");
  }
}

void Journal::cut_back() noexcept {
  torn_ = end_ < 0 || ftruncate(fd_, end_) != 0 || lseek(fd_, end_, SEEK_SET) < 0;
}

void Journal::change_file(int fd) {
  if (pending_) throw std::logic_error("records are pending: flush the journal before it goes on in another file");
  fd_ = fd;
  end_ = lseek(fd, 0, SEEK_END);
  torn_ = false;
}

}  // namespace microrisk
