#include "microrisk/parquet.hpp"

#include <algorithm>
#include <bit>

namespace microrisk::parquet {

namespace {

constexpr std::size_t BLOCK = 128, MINIS = 4, MINI = BLOCK / MINIS;  // DELTA_BINARY_PACKED, as other writers

// Appends values of a few bits each, least significant bit first, through a 64-bit register.
class Bits {
 public:
  Bits(Body& out, std::size_t bits) : out_(out), at_(out.size()) { out.resize(at_ + bits / 8 + 9); }

  void put(std::uint64_t value, unsigned width) noexcept {
    word_ |= value << used_;
    used_ += width;
    if (used_ < 64) return;
    std::memcpy(out_.data() + at_, &word_, 8);
    at_ += 8;
    used_ -= 64;
    // used_ bits of `value` did not fit; a shift by the whole width would be undefined
    word_ = used_ == 0 ? 0 : value >> (width - used_);
  }
  // Cuts the output to whole bytes.
  void end() {
    std::memcpy(out_.data() + at_, &word_, 8);
    out_.resize(at_ + (used_ + 7) / 8);
  }

 private:
  Body& out_;
  std::size_t at_;
  std::uint64_t word_ = 0;
  unsigned used_ = 0;
};

void put_bytes(const void* from, std::size_t n, Body& out) {
  const std::size_t at = out.size();
  out.resize(at + n);
  if (n > 0) std::memcpy(out.data() + at, from, n);
}

std::uint64_t zigzag(std::int64_t v) noexcept {
  return static_cast<std::uint64_t>(v) << 1 ^ static_cast<std::uint64_t>(v >> 63);
}

std::uint64_t minus(std::int64_t a, std::int64_t b) noexcept {
  return static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b);
}

// Levels carry their length in front.
template <class F>
void put_sized(Body& out, F&& body) {
  const std::size_t at = out.size();
  out.resize(at + 4);
  body();
  const auto n = static_cast<std::uint32_t>(out.size() - at - 4);
  std::memcpy(out.data() + at, &n, 4);
}

// One bit-packed run around `bits`, filled up to whole groups of 8 values.
template <class F>
void put_packed_run(std::size_t n, unsigned width, Body& out, F&& fill) {
  const std::size_t groups = (n + 7) / 8;
  put_varint(groups << 1 | 1, out);
  const std::size_t at = out.size();
  Bits bits(out, groups * 8 * width);
  fill(bits);
  bits.end();
  out.resize(at + groups * width, 0);
}

}  // namespace

void put_varint(std::uint64_t value, Body& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::uint8_t>(value | 0x80));
  out.push_back(static_cast<std::uint8_t>(value));
}

unsigned bytes_of(std::uint64_t n) noexcept {
  return n <= 256 ? 1 : static_cast<unsigned>(std::bit_width(n - 1) + 7) / 8;
}

void put_whole(const std::uint32_t* values, std::size_t n, unsigned bytes, Body& out) {
  const std::size_t groups = (n + 7) / 8;
  put_varint(groups << 1 | 1, out);
  const std::size_t at = out.size();
  out.resize(at + groups * 8 * bytes + sizeof(std::uint32_t));
  std::uint8_t* to = out.data() + at;
  // each write runs over into the place of the next
  for (std::size_t i = 0; i < n; ++i, to += bytes) std::memcpy(to, values + i, sizeof(std::uint32_t));
  std::fill(to, out.data() + out.size(), std::uint8_t{0});
  out.resize(at + groups * 8 * bytes);
}

void put_run(std::size_t n, std::uint8_t value, Body& out) {
  put_varint(n << 1, out);
  out.push_back(value);
}

// Blocks of 128 differences in 4 miniblocks; each keeps its differences above the block's smallest, in as few bits as
// the largest of them needs. Sums wrap, as the format says.
void put_delta(const std::int64_t* values, std::size_t n, Body& out) {
  put_varint(BLOCK, out);
  put_varint(MINIS, out);
  put_varint(n, out);
  put_varint(zigzag(n > 0 ? values[0] : 0), out);
  std::uint64_t delta[BLOCK];
  for (std::size_t at = 1; at < n; at += BLOCK) {
    const std::size_t m = std::min(BLOCK, n - at);
    std::int64_t least = INT64_MAX;
    for (std::size_t i = 0; i < m; ++i) {
      delta[i] = minus(values[at + i], values[at + i - 1]);
      least = std::min(least, static_cast<std::int64_t>(delta[i]));
    }
    std::uint64_t any[MINIS] = {};
    for (std::size_t i = 0; i < m; ++i) any[i / MINI] |= delta[i] -= static_cast<std::uint64_t>(least);
    for (std::size_t i = m; i < BLOCK; ++i) delta[i] = 0;
    put_varint(zigzag(least), out);
    for (const std::uint64_t bits : any) out.push_back(static_cast<std::uint8_t>(std::bit_width(bits)));
    for (std::size_t k = 0; k * MINI < m; ++k) {
      const auto width = static_cast<unsigned>(std::bit_width(any[k]));
      if (width == 0) continue;
      Bits bits(out, MINI * width);
      for (std::size_t i = 0; i < MINI; ++i) bits.put(delta[k * MINI + i], width);
      bits.end();
    }
  }
}

// ---- dictionary ----------------------------------------------------------------------------------------------------

std::uint32_t& Dictionary::slot_of(std::int64_t value) noexcept {
  // the high bits of the product: prices are multiples of large powers of ten, their low bits say little
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::uint64_t>(value) * 0x9E3779B97F4A7C15U >> shift_;
  while (slots_[i] != 0 && values_[slots_[i] - 1] != value) i = (i + 1) & mask;
  return slots_[i];
}

void Dictionary::grow() {
  const std::size_t n = std::max<std::size_t>(1024, 2 * slots_.size());
  slots_.clear();
  slots_.resize(n);
  shift_ = 64 - static_cast<unsigned>(std::countr_zero(n));
  for (std::size_t i = 0; i < values_.size(); ++i) slot_of(values_[i]) = static_cast<std::uint32_t>(i + 1);
}

bool Dictionary::encode(const std::int64_t* values, std::size_t n, Arena<std::uint32_t>& out) {
  out.clear();
  out.extend(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (2 * values_.size() >= slots_.size()) grow();
    std::uint32_t& index = slot_of(values[i]);
    if (index == 0) {
      if (values_.size() == LIMIT) return false;
      values_.push(values[i]);
      index = static_cast<std::uint32_t>(values_.size());
    }
    out[i] = index - 1;
  }
  return true;
}

void Dictionary::clear() noexcept {
  values_.clear();
  const std::size_t n = slots_.size();
  slots_.clear();
  if (n > 0) slots_.resize(n);
}

// ---- columns -------------------------------------------------------------------------------------------------------

void Column::reserve(std::size_t n) {
  // the sizes of the arenas are set to what is in use, then raised: put and put_if write through data()
  values_.clear();
  values_.extend(held_);
  values_.extend(n + 1);  // one more: put_if writes before it knows
  there_.clear();
  there_.extend(entries_);
  there_.extend(n);
}

void Column::note(const std::int64_t* values, std::size_t n) noexcept {
  std::int64_t least = least_, most = most_;
  std::uint64_t least_u = least_u_, most_u = most_u_;
  for (std::size_t i = 0; i < n; ++i) {
    const auto u = static_cast<std::uint64_t>(values[i]);
    least = std::min(least, values[i]), most = std::max(most, values[i]);
    least_u = std::min(least_u, u), most_u = std::max(most_u, u);
  }
  least_ = least, most_ = most, least_u_ = least_u, most_u_ = most_u;
  any_ = any_ || n > 0;
}

void Column::put_levels(Body& out, std::uint32_t& entries) {
  entries = static_cast<std::uint32_t>(entries_);
  put_sized(out, [&] {
    if (held_ == entries_ || held_ == 0) return put_run(entries_, held_ > 0, out);
    put_packed_run(entries_, 1, out, [&](Bits& bits) {
      for (std::size_t i = 0; i < entries_; ++i) bits.put(there_[i], 1);
    });
  });
}

// Definition levels of `optional group (LIST) { repeated group { optional int64 } }`: 0 no list, 1 empty, 2 a null in
// it, 3 a value. An empty list takes a place of its own.
void Column::put_list_levels(Body& out, std::uint32_t& entries) {
  std::size_t n = 0, empty = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) empty += counts_[i] == 0, n += std::max(counts_[i], 1U);
  entries = static_cast<std::uint32_t>(n);
  put_sized(out, [&] {
    put_packed_run(n, 1, out, [&](Bits& bits) {
      for (std::size_t i = 0; i < counts_.size(); ++i) {
        std::uint32_t more = std::max(counts_[i], 1U);
        bits.put(0, 1);
        for (--more; more > 32; more -= 32) bits.put(UINT32_MAX, 32);
        if (more > 0) bits.put((std::uint64_t{1} << more) - 1, more);
      }
    });
  });
  put_sized(out, [&] {
    if (empty == 0 && held_ == entries_) return put_run(n, 3, out);
    put_packed_run(n, 2, out, [&](Bits& bits) {
      std::size_t at = 0;
      for (std::size_t i = 0; i < counts_.size(); ++i) {
        if (counts_[i] == 0) bits.put(1, 2);
        for (std::uint32_t k = 0; k < counts_[i]; ++k) bits.put(2U + there_[at++], 2);
      }
    });
  });
}

Encoding Column::put_values(std::uint64_t codes, Body& out) {
  if (kind_ == Kind::FLAG) {
    Bits bits(out, held_);
    for (std::size_t i = 0; i < held_; ++i) bits.put(values_.data()[i] != 0, 1);
    bits.end();
    return Encoding::PLAIN;
  }
  // indices into an empty dictionary are more than readers can be asked to take
  if (kind_ == Kind::REPEATED && held_ == 0) return Encoding::PLAIN;
  if (kind_ == Kind::RISING) {
    note(values_.data(), held_);
    put_delta(values_.data(), held_, out);
    return Encoding::DELTA_BINARY_PACKED;
  }
  if (kind_ == Kind::CODE) {
    indices_.clear();
    indices_.extend(held_);
    for (std::size_t i = 0; i < held_; ++i) indices_[i] = static_cast<std::uint32_t>(values_.data()[i]);
  } else {
    overflowed_ = overflowed_ || !dictionary_.encode(values_.data(), held_, indices_);
    codes = dictionary_.values().size();
  }
  if (overflowed_) {
    note(values_.data(), held_);
    put_bytes(values_.data(), held_ * sizeof(std::int64_t), out);
    return Encoding::PLAIN;
  }
  const unsigned width = bytes_of(codes);
  out.push_back(static_cast<std::uint8_t>(8 * width));
  put_whole(indices_.data(), held_, width, out);
  return Encoding::RLE_DICTIONARY;
}

void Column::end_page(std::uint32_t number, std::uint64_t codes, std::vector<Page>& out) {
  if (entries_ == 0 && counts_.empty()) return;
  Page& page = out.emplace_back(Page{number, Encoding::PLAIN, 0, {}});
  // levels of at most 3 bits, then codes; what is longer grows
  page.body.reserve(64 + (entries_ + counts_.size()) / 2 + 4 * held_);
  if (list_) {
    put_list_levels(page.body, page.values);
  } else {
    put_levels(page.body, page.values);
  }
  page.encoding = put_values(codes, page.body);
  nulls_ += page.values - held_;
  held_ = entries_ = 0;
  counts_.clear();
}

Summary Column::end_group(bool is_unsigned, Body& dictionary, std::uint32_t& entries) {
  dictionary.clear();
  const Arena<std::int64_t>& values = dictionary_.values();
  entries = static_cast<std::uint32_t>(values.size());
  put_bytes(values.data(), values.size() * sizeof(std::int64_t), dictionary);
  note(values.data(), values.size());
  Summary out{any_ ? least_ : 0, any_ ? most_ : 0, nulls_, any_};
  if (is_unsigned && any_) {
    out.min = static_cast<std::int64_t>(least_u_), out.max = static_cast<std::int64_t>(most_u_);
  }
  dictionary_.clear();
  overflowed_ = any_ = false;
  nulls_ = 0;
  least_ = INT64_MAX, most_ = INT64_MIN, least_u_ = UINT64_MAX, most_u_ = 0;
  return out;
}

}  // namespace microrisk::parquet
