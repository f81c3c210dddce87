// libFuzzer target: hostile bytes through decoder and engine with every sink on.
//
//   clang:  cmake -S . -B build/fuzz -DMICRORISK_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++ && cmake --build build/fuzz
//           build/fuzz/fuzz_itch tests/golden
//   others: the same without the compiler; build/fuzz/fuzz_itch FILE... [--rounds N] runs seeded mutations of the
//   files.
//
// First byte: options. Second: in how many parts the rest arrives. Then either framed ITCH, or raw event records.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "microrisk/engine.hpp"

namespace {

using namespace microrisk;

// Levels must rise, hold what their orders say, and agree with the view: a broken book is a crash here.
void check(const Engine& engine) {
  for (const Instrument* in : engine.instruments()) {
    for (const Ladder& side : in->book.side) {
      for (std::size_t i = 0; i < side.size(); ++i) {
        const Level& level = engine.store().level(side.rung(i).level);
        if (i > 0 && side.rung(i - 1).key >= side.rung(i).key) std::abort();
        if (level.key != side.rung(i).key || level.qty <= 0) std::abort();
        std::int64_t sum = 0;
        std::uint32_t n = 0;
        for (Handle o = level.head; level.orders > 0 && o != NO_HANDLE; o = engine.store().order(o).next, ++n) {
          sum += engine.store().order(o).qty;
          if (engine.store().find(in->book.instrument, engine.store().order(o).id) != o) std::abort();
        }
        if (level.orders > 0 && (sum != level.qty || n != level.orders)) std::abort();
      }
    }
    const View& v = in->view;
    const Ladder &bids = in->book.side[0], &asks = in->book.side[1];
    if (v.n_bid != std::min(bids.size(), DEPTH) || v.n_ask != std::min(asks.size(), DEPTH)) std::abort();
    for (std::size_t i = 0; i < v.n_bid; ++i) {
      if (v.bid_px[i] != bids.best(i).key || v.bid_qty[i] != engine.store().level(bids.best(i).level).qty) std::abort();
    }
    for (std::size_t i = 0; i < v.n_ask; ++i) {
      if (v.ask_px[i] != ~asks.best(i).key || v.ask_qty[i] != engine.store().level(asks.best(i).level).qty)
        std::abort();
    }
  }
}

void feed_itch(Engine& engine, const std::vector<std::uint8_t>& data, std::size_t parts, bool loose) {
  ItchDecoder decoder(0, loose);
  std::size_t offset = 0;
  for (std::size_t part = 1; part <= parts; ++part) {
    offset = engine.run_itch(decoder, data.data(), data.size() * part / parts, offset, UINT64_MAX);
    if (offset > data.size()) std::abort();
  }
}

// Instruments and ids are folded so that events meet each other.
void feed_events(Engine& engine, const std::vector<std::uint8_t>& data) {
  std::vector<Event> events(data.size() / sizeof(Event));
  if (events.empty()) return;
  std::memcpy(events.data(), data.data(), events.size() * sizeof(Event));
  for (Event& e : events) {
    e.instrument %= 5;
    e.order_id %= 16;
    e.ref %= 16;
    e.action %= 11;
  }
  engine.run_events(events.data(), events.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  Engine engine((bytes[0] & 1) != 0, 8, 2);
  engine.record_bbo();
  engine.record_views((bytes[0] & 2) != 0 ? 1000 : 0);
  engine.record_depth(1 + (bytes[0] >> 5));
  engine.ticks((bytes[0] & 4) != 0);
  const std::vector<std::uint8_t> data(bytes + 2, bytes + size);  // its own block, so that reads behind it are seen
  if ((bytes[0] & 8) != 0) {
    feed_events(engine, data);
  } else {
    feed_itch(engine, data, 1 + bytes[1] % 7U, (bytes[0] & 16) != 0);
  }
  engine.finish();
  check(engine);
  return 0;
}

#if defined(MICRORISK_FUZZ_MAIN)

#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

namespace {

using Input = std::vector<std::uint8_t>;

Input read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return Input(std::istreambuf_iterator<char>(file), {});
}

// A slice of the seed with some bytes changed, under random options.
Input mutate(const Input& seed, std::mt19937_64& random) {
  const std::size_t begin = seed.empty() ? 0 : random() % seed.size();
  const std::size_t end = begin + random() % (seed.size() - begin + 1);
  Input out(seed.begin() + static_cast<std::ptrdiff_t>(random() % 2 * begin),
            seed.begin() + static_cast<std::ptrdiff_t>(end));
  for (std::size_t n = random() % 24; n > 0 && !out.empty(); --n) {
    out[random() % out.size()] = static_cast<std::uint8_t>(random() % 3 == 0 ? random() : random() % 4);
  }
  const auto options = static_cast<std::uint8_t>(random()), parts = static_cast<std::uint8_t>(random());
  out.insert(out.begin(), {options, parts});
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned long rounds = 20'000;
  std::vector<Input> seeds;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--rounds" && i + 1 < argc) {
      rounds = std::strtoul(argv[++i], nullptr, 10);
    } else {
      seeds.push_back(read(argv[i]));
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "usage: fuzz_itch FILE... [--rounds N]\n");
    return 2;
  }
  std::mt19937_64 random(20'261'122);
  for (const Input& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  for (unsigned long n = 0; n < rounds; ++n) {
    const Input input = mutate(seeds[n % seeds.size()], random);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%lu inputs without a finding\n", rounds + seeds.size());
  return 0;
}

#endif
