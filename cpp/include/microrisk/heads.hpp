// The four heads of one weight set, in integers, equal to microrisk.fixed to the bit.
//
// A layer is kept as 16-bit weights in groups of eight outputs: for each pair of inputs one 256-bit row holds
// (w[o][2k], w[o][2k+1]) for eight outputs o. One multiply-add instruction then does sixteen products, and the eight
// sums need no reduction across lanes. Odd sizes are padded with zeros, which change nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "microrisk/spec.hpp"

namespace microrisk {

// One layer as it lies in the weight file; row-major weight[out][in].
struct LayerWeights {
  const std::int8_t* weight;
  const std::int32_t* bias;
  const std::uint8_t* shift;
};

inline constexpr std::size_t N_LAYERS = std::size(LAYERS);
inline constexpr std::size_t LANES = 8;
// Places in LAYERS.
enum LayerIndex : std::size_t {
  MAHA_0,
  ENCODER_0,
  ENCODER_1,
  ENCODER_2,
  DECODER_0,
  DECODER_1,
  DECODER_2,
  EXPOSURE_0,
  EXPOSURE_1,
  EXPOSURE_2
};
static_assert(N_LAYERS == EXPOSURE_2 + 1 && LAYERS[EXPOSURE_2].activation == Activation::acc);
static_assert(LAYERS[MAHA_0].out == N_FEATURES && LAYERS[DECODER_2].out == N_FEATURES);
static_assert(LAYERS[ENCODER_2].out == LAYERS[DECODER_0].in && LAYERS[ENCODER_2].out <= LANES);

constexpr std::size_t groups_of(const LayerShape& s) {
  return (s.out + LANES - 1) / LANES;
}
constexpr std::size_t pairs_of(const LayerShape& s) {
  return (s.in + 1) / 2;
}

struct alignas(32) PackedWeights {
  std::array<const std::int16_t*, N_LAYERS> weight;  // [group][pair][8 outputs][2]
  std::array<const std::int32_t*, N_LAYERS> bias;    // [group][8], rounding term included
  std::array<const std::int32_t*, N_LAYERS> shift;   // [group][8]
  alignas(32) std::int32_t residual_exp[N_FEATURES];
  alignas(32) std::int16_t keep[N_FEATURES];  // -1, or 0 where the feature is masked
  std::int32_t latent_exp;
};

class Heads {
 public:
  // Throws std::invalid_argument, naming layer and row, when a row could leave the accumulator's range.
  Heads(const std::array<LayerWeights, N_LAYERS>& layers, const std::uint8_t* residual_exp, std::uint8_t latent_exp,
        std::uint32_t mask);
  Heads(const Heads&) = delete;
  Heads& operator=(const Heads&) = delete;

  void score(const std::int8_t* codes, std::int32_t* heads) const noexcept { kernel_(packed_, codes, heads); }
  bool vectorised() const noexcept { return vectorised_; }
  // Turns the vector form off (tests compare both); true turns it on where the machine has it.
  void use_vectors(bool on) noexcept;

 private:
  using Kernel = void (*)(const PackedWeights&, const std::int8_t*, std::int32_t*) noexcept;

  void pack_layer(std::size_t layer, const LayerWeights& from, std::int16_t* weight, std::int32_t* bias,
                  std::int32_t* shift);

  struct AlignedFree {
    void operator()(void* p) const noexcept;
  };
  std::unique_ptr<void, AlignedFree> block_;
  PackedWeights packed_{};
  Kernel kernel_ = nullptr;
  bool vectorised_ = false;
};

// heads[4] of codes[32]: plain C++.
void score_plain(const PackedWeights& w, const std::int8_t* codes, std::int32_t* heads) noexcept;
#if defined(__x86_64__)
// The same with AVX2; call only where the CPU has it.
void score_avx2(const PackedWeights& w, const std::int8_t* codes, std::int32_t* heads) noexcept;
#endif
// Whether this CPU can run the vector form.
bool has_vectors() noexcept;

}  // namespace microrisk
