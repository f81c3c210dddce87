// Runs a stream through the engine for valgrind: FILE FILL_BYTES whole|single.
// Built and called by counts.py.
//
// whole: everything behind the fill in one call of measured(), which callgrind
// collects. single: one call a message, a store to `marker` in front of each,
// so that an address trace can be cut into messages.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "microrisk/engine.hpp"

namespace {

volatile std::uint64_t marker = 0;

std::vector<std::uint8_t> read(const char *path) {
  std::vector<std::uint8_t> out;
  std::FILE *in = std::fopen(path, "rb");
  if (in == nullptr)
    return out;
  std::fseek(in, 0, SEEK_END);
  out.resize(static_cast<std::size_t>(std::ftell(in)));
  std::rewind(in);
  out.resize(std::fread(out.data(), 1, out.size(), in));
  std::fclose(in);
  return out;
}

} // namespace

extern "C" __attribute__((noinline)) std::size_t
measured(microrisk::Engine &engine, microrisk::ItchDecoder &decoder,
         const std::vector<std::uint8_t> &data, std::size_t from) {
  return engine.run_itch(decoder, data.data(), data.size(), from, UINT64_MAX);
}

int main(int argc, char **argv) {
  if (argc != 4)
    return 2;
  const std::vector<std::uint8_t> data = read(argv[1]);
  const auto fill =
      static_cast<std::size_t>(std::strtoull(argv[2], nullptr, 10));
  microrisk::Engine engine(false, 65'536, 64);
  microrisk::ItchDecoder decoder(0, false);
  std::size_t at =
      fill == 0 ? 0
                : engine.run_itch(decoder, data.data(), fill, 0, UINT64_MAX);
  const std::uint64_t before = decoder.messages;
  const int local = 0;
  std::printf(
      "%p %p %p %p\n",
      const_cast<const void *>(static_cast<const volatile void *>(&marker)),
      static_cast<const void *>(data.data()),
      static_cast<const void *>(data.data() + data.size()),
      static_cast<const void *>(&local));
  if (std::strcmp(argv[3], "whole") == 0) {
    at = measured(engine, decoder, data, at);
  } else {
    while (at < data.size()) {
      marker = decoder.messages;
      at = engine.run_itch(decoder, data.data(), data.size(), at, 1);
    }
  }
  std::printf("%llu\n",
              static_cast<unsigned long long>(decoder.messages - before));
  return at == data.size() ? 0 : 1;
}
