// For compilers without libFuzzer, and for measuring coverage: runs a target over files and folders, and over seeded
// mutations of them.
//
//   TARGET [--rounds N] FILE_OR_FOLDER...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

std::vector<Bytes> collect(const std::vector<std::string>& paths) {
  std::vector<std::filesystem::path> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> out;
  for (const auto& file : files) out.push_back(read(file));
  return out;
}

// A few bytes changed, a piece of another seed put in, or a piece cut out.
Bytes mutate(const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  Bytes out = seeds[random() % seeds.size()];
  const Bytes& other = seeds[random() % seeds.size()];
  const auto place = [&random](std::size_t n) { return static_cast<std::ptrdiff_t>(random() % (n + 1)); };
  if (random() % 2 == 0) {
    const auto begin = place(other.size()), end = place(other.size());
    out.insert(out.begin() + place(out.size()), other.begin() + std::min(begin, end),
               other.begin() + std::max(begin, end));
  }
  if (random() % 4 == 0) {
    const auto begin = place(out.size()), end = place(out.size());
    out.erase(out.begin() + std::min(begin, end), out.begin() + std::max(begin, end));
  }
  for (std::size_t n = random() % 16; n > 0 && !out.empty(); --n) {
    out[random() % out.size()] = static_cast<std::uint8_t>(random());
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned long rounds = 0;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--rounds" && i + 1 < argc) {
      rounds = std::strtoul(argv[++i], nullptr, 10);
    } else {
      paths.emplace_back(argv[i]);
    }
  }
  const std::vector<Bytes> seeds = collect(paths);
  if (seeds.empty()) {
    std::fprintf(stderr, "usage: %s [--rounds N] FILE_OR_FOLDER...\n", argv[0]);
    return 2;
  }
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  std::mt19937_64 random(20'261'122);
  for (unsigned long n = 0; n < rounds; ++n) {
    const Bytes input = mutate(seeds, random);
    std::ofstream("last-input.bin", std::ios::binary)
        .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu files and %lu mutations without a finding\n", seeds.size(), rounds);
  return 0;
}
