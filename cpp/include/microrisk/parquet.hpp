// Columns to the bodies of Parquet pages (Apache Parquet format 2.x, data page version 1), before compression.
//
// A general writer spends 25 to 40 ns a value on lists: it derives repetition and definition levels from offsets and
// bitmaps it knows nothing about. Here the levels are known when a row is put down (a list of n values is a zero bit
// and n - 1 ones), nulls are counted, and a page without any needs a single run. Compression, page headers and the
// footer are cheap by the page and made in Python (microrisk/pipeline/paged.py).
//
// Three encodings of INT64 and what they are for, by measurement: DELTA_BINARY_PACKED for what rises (times, sequence
// numbers), a dictionary for what repeats (prices, sizes), PLAIN behind a dictionary that would grow too large.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "microrisk/memory.hpp"

namespace microrisk::parquet {

using Body = std::vector<std::uint8_t>;

// Numbers of the format.
enum class Encoding : std::uint8_t { PLAIN = 0, DELTA_BINARY_PACKED = 5, RLE_DICTIONARY = 8 };

struct Page {
  std::uint32_t column;
  Encoding encoding;
  std::uint32_t values;  // nulls and, in a list column, empty lists count as one each
  Body body;
};

// ---- encoders of runs of integers; each appends to `out` -----------------------------------------------------------

void put_varint(std::uint64_t value, Body& out);
// Bytes needed for 0..n-1, at least 1.
unsigned bytes_of(std::uint64_t n) noexcept;
// RLE/bit-packed hybrid, one bit-packed run: `n` values of 8 * `bytes` bits, 1..4. The format lets the writer choose
// the width. Whole bytes leave to the compressor what fewer bits hide from it, that a list repeats most of the one
// before: tables of depth 10 became a third smaller and a fifth cheaper than with the fewest bits.
void put_whole(const std::uint32_t* values, std::size_t n, unsigned bytes, Body& out);
// RLE/bit-packed hybrid, one run of `n` times `value` (width 1..8).
void put_run(std::size_t n, std::uint8_t value, Body& out);
void put_delta(const std::int64_t* values, std::size_t n, Body& out);

// Distinct values in the order of their first appearance.
class Dictionary {
 public:
  static constexpr std::size_t LIMIT = std::size_t{1} << 17;  // 1 MiB of values, as other writers

  // Indices of all values; false, with some of them entered, when there would be more than LIMIT.
  bool encode(const std::int64_t* values, std::size_t n, Arena<std::uint32_t>& out);
  const Arena<std::int64_t>& values() const noexcept { return values_; }
  void clear() noexcept;

 private:
  std::uint32_t& slot_of(std::int64_t value) noexcept;
  void grow();

  Arena<std::int64_t> values_;
  // Index of a value + 1, 0 = free. The values stay where they are: a third of the memory of a table that repeats them,
  // and this is what has to stay in the cache.
  Arena<std::uint32_t> slots_;
  unsigned shift_ = 64;
};

// ---- columns -------------------------------------------------------------------------------------------------------

enum class Kind : std::uint8_t {
  RISING,    // INT64 by difference
  REPEATED,  // INT64 by dictionary
  CODE,      // indices into a dictionary that somebody else keeps
  FLAG,      // BOOLEAN
};

struct Summary {
  std::int64_t min, max;  // of the non-null values; both 0 when there are none, or no INT64
  std::uint64_t nulls;
  bool any;
};

// One optional leaf column, or one optional list of optional values; what is put down stays until end_page turns it
// into a page.
class Column {
 public:
  void init(Kind kind, bool list) noexcept { kind_ = kind, list_ = list; }

  // Room for `n` more values; then n times put or skip, or put_all.
  void reserve(std::size_t n);
  void put(std::int64_t value) noexcept { values_.data()[held_++] = value, there_.data()[entries_++] = 1; }
  void put_if(bool there, std::int64_t value) noexcept {
    values_.data()[held_] = value;
    held_ += there;
    there_.data()[entries_++] = there;
  }
  // `n` values, all there, which the caller sets.
  std::int64_t* put_all(std::size_t n) noexcept {
    std::memset(there_.data() + entries_, 1, n);
    entries_ += n, held_ += n;
    return values_.data() + held_ - n;
  }
  // Takes back the last `n` values of put_all.
  void take_back(std::size_t n) noexcept { entries_ -= n, held_ -= n; }
  // A list row of the `n` values just put; 0 = an empty list.
  void row(std::uint32_t n) { counts_.push(n); }
  std::size_t entries() const noexcept { return entries_; }

  // Everything put down since the last page; `codes` = size of the dictionary of a CODE column.
  void end_page(std::uint32_t number, std::uint64_t codes, std::vector<Page>& out);
  // The dictionary of the row group (empty: none), then a fresh start.
  Summary end_group(bool is_unsigned, Body& dictionary, std::uint32_t& entries);

 private:
  void put_levels(Body& out, std::uint32_t& entries);
  void put_list_levels(Body& out, std::uint32_t& entries);
  Encoding put_values(std::uint64_t codes, Body& out);
  void note(const std::int64_t* values, std::size_t n) noexcept;

  Kind kind_ = Kind::RISING;
  bool list_ = false;
  bool overflowed_ = false;  // the group's dictionary is full: PLAIN from here on
  std::size_t held_ = 0;     // values that are there
  std::size_t entries_ = 0;  // values, nulls included
  Arena<std::int64_t> values_;
  Arena<std::uint8_t> there_;
  Arena<std::uint32_t> counts_, indices_;
  Dictionary dictionary_;
  std::int64_t least_ = INT64_MAX, most_ = INT64_MIN;
  std::uint64_t least_u_ = UINT64_MAX, most_u_ = 0;
  std::uint64_t nulls_ = 0;
  bool any_ = false;
};

}  // namespace microrisk::parquet
