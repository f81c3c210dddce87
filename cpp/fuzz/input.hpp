// What every target shares: the fuzzer's bytes read front to back, and the way to say that two answers differ.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace fuzz {

using Bytes = std::vector<std::uint8_t>;

// A difference is a crash: the fuzzer keeps the input.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  std::va_list args;
  va_start(args, format);
  std::fputs("DIFFERENCE: ", stderr);
  std::vfprintf(stderr, format, args);
  std::fputc('\n', stderr);
  va_end(args);
  std::abort();
}

template <class A, class B>
void equal(const char* what, const A& ours, const B& naive) {
  if (static_cast<A>(naive) != ours) {
    fail("%s: %lld, naive %lld", what, static_cast<long long>(ours), static_cast<long long>(naive));
  }
}

// Behind the end it gives zeros, so that every input means something.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) noexcept : data_(data), left_(size) {}

  bool empty() const noexcept { return left_ == 0; }
  std::uint8_t byte() noexcept {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  std::uint32_t word() noexcept {
    const std::uint32_t low = byte();
    return low | static_cast<std::uint32_t>(byte()) << 8;
  }
  Bytes take(std::size_t n) {
    n = n < left_ ? n : left_;
    Bytes out(data_, data_ + n);
    data_ += n, left_ -= n;
    return out;
  }
  Bytes rest() { return take(left_); }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

// A block of its own, of exactly this size: a read behind its end is seen.
class Block {
 public:
  Block(const std::uint8_t* from, std::size_t size) : bytes_(new std::uint8_t[size]), size_(size) {
    if (size > 0) std::memcpy(bytes_.get(), from, size);
  }
  const std::uint8_t* data() const noexcept { return bytes_.get(); }
  std::size_t size() const noexcept { return size_; }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t size_;
};

template <std::size_t N, class T>
T pick(const T (&table)[N], std::size_t n) noexcept {
  return table[n % N];
}

}  // namespace fuzz
