#include "microrisk/heads.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "microrisk/memory.hpp"

namespace microrisk {

namespace {

std::string place(std::size_t layer, std::size_t row) {
  return std::string("layer ") + LAYERS[layer].name + " row " + std::to_string(row);
}

// Worst case of one row's accumulator, rounding term included (spec.formats.ACC).
void check_row(std::size_t layer, std::size_t row, const LayerWeights& w) {
  const std::size_t in = LAYERS[layer].in;
  const int shift = w.shift[row];
  if (shift > SHIFT_MAX)
    throw std::invalid_argument(place(layer, row) + ": shift " + std::to_string(shift) + " is above 15");
  std::int64_t worst = std::abs(static_cast<std::int64_t>(w.bias[row])) + (shift > 0 ? 1LL << (shift - 1) : 0);
  for (std::size_t i = 0; i < in; ++i) worst += 128 * std::abs(static_cast<std::int64_t>(w.weight[row * in + i]));
  if (worst >= ACC_LIMIT) {
    throw std::invalid_argument(place(layer, row) + ": worst case " + std::to_string(worst) + " is not below 2^23");
  }
}

void check_squares(const std::uint8_t* residual_exp, std::uint8_t latent_exp, std::size_t latents) {
  constexpr std::int64_t RESIDUAL = 255 * 255, LATENT = 128 * 128;
  std::int64_t worst = 0;
  for (std::size_t i = 0; i < N_FEATURES; ++i) {
    if (residual_exp[i] > RESIDUAL_EXP_MAX) throw std::invalid_argument("vae.residual_exp above 9");
    worst += RESIDUAL << residual_exp[i];
  }
  if (latent_exp > 30) throw std::invalid_argument("vae.latent_exp above 30");
  worst += (LATENT * static_cast<std::int64_t>(latents)) << latent_exp;
  if (worst > INT32_MAX) throw std::invalid_argument("vae exponents: the worst sum does not fit 32 bits");
}

// ---- plain form ----------------------------------------------------------------------------------------------------

constexpr std::size_t WIDTH = 32;  // room for the widest layer

void accumulate(const PackedWeights& w, std::size_t layer, const std::int16_t* in, std::int32_t* acc) noexcept {
  const std::size_t pairs = pairs_of(LAYERS[layer]);
  for (std::size_t g = 0; g < groups_of(LAYERS[layer]); ++g) {
    std::int32_t* out = acc + g * LANES;
    std::memcpy(out, w.bias[layer] + g * LANES, LANES * sizeof(std::int32_t));
    for (std::size_t k = 0; k < pairs; ++k) {
      const std::int16_t* row = w.weight[layer] + (g * pairs + k) * 2 * LANES;
      for (std::size_t o = 0; o < LANES; ++o) out[o] += in[2 * k] * row[2 * o] + in[2 * k + 1] * row[2 * o + 1];
    }
  }
}

void dense(const PackedWeights& w, std::size_t layer, const std::int16_t* in, std::int16_t* out) noexcept {
  std::int32_t acc[WIDTH];
  accumulate(w, layer, in, acc);
  const std::int32_t low = LAYERS[layer].activation == Activation::relu ? 0 : CODE_LOW;
  for (std::size_t o = 0; o < groups_of(LAYERS[layer]) * LANES; ++o) {
    out[o] = static_cast<std::int16_t>(std::clamp(acc[o] >> w.shift[layer][o], low, CODE_HIGH));
  }
}

std::int32_t squares(const std::int16_t* x, std::size_t n) noexcept {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

}  // namespace

void score_plain(const PackedWeights& w, const std::int8_t* codes, std::int32_t* heads) noexcept {
  std::int16_t x[WIDTH], a[WIDTH] = {}, b[WIDTH] = {}, latent[LANES];
  std::int32_t top = 0;
  for (std::size_t i = 0; i < N_FEATURES; ++i) {
    x[i] = codes[i];
    top = std::max<std::int32_t>(top, std::abs(x[i]));
  }
  heads[0] = top;
  dense(w, MAHA_0, x, a);
  heads[1] = squares(a, N_FEATURES);
  dense(w, ENCODER_0, x, a);
  dense(w, ENCODER_1, a, b);
  dense(w, ENCODER_2, b, latent);
  dense(w, DECODER_0, latent, a);
  dense(w, DECODER_1, a, b);
  dense(w, DECODER_2, b, a);
  std::int32_t sum = squares(latent, LAYERS[ENCODER_2].out) << w.latent_exp;
  for (std::size_t i = 0; i < N_FEATURES; ++i) {
    const std::int32_t r = (x[i] - a[i]) & w.keep[i];
    sum += (r * r) << w.residual_exp[i];
  }
  heads[2] = sum;
  dense(w, EXPOSURE_0, x, a);
  dense(w, EXPOSURE_1, a, b);
  std::int32_t acc[WIDTH];
  accumulate(w, EXPOSURE_2, b, acc);
  heads[3] = acc[0];
}

bool has_vectors() noexcept {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") != 0;
#else
  return false;
#endif
}

void Heads::AlignedFree::operator()(void* p) const noexcept {
  std::free(p);
}

void Heads::use_vectors(bool on) noexcept {
  kernel_ = score_plain;
  vectorised_ = on && has_vectors();
#if defined(__x86_64__)
  if (vectorised_) kernel_ = score_avx2;
#endif
}

void Heads::pack_layer(std::size_t layer, const LayerWeights& from, std::int16_t* weight, std::int32_t* bias,
                       std::int32_t* shift) {
  const LayerShape& s = LAYERS[layer];
  const std::size_t pairs = pairs_of(s);
  const bool rounds = s.activation != Activation::acc;
  for (std::size_t o = 0; o < s.out; ++o) {
    check_row(layer, o, from);
    const std::size_t group = o / LANES, lane = o % LANES;
    for (std::size_t i = 0; i < s.in; ++i) {
      weight[((group * pairs + i / 2) * LANES + lane) * 2 + i % 2] = from.weight[o * s.in + i];
    }
    const std::int32_t half = rounds && from.shift[o] > 0 ? 1 << (from.shift[o] - 1) : 0;
    bias[o] = from.bias[o] + half;
    shift[o] = rounds ? from.shift[o] : 0;
  }
  packed_.weight[layer] = weight;
  packed_.bias[layer] = bias;
  packed_.shift[layer] = shift;
}

Heads::Heads(const std::array<LayerWeights, N_LAYERS>& layers, const std::uint8_t* residual_exp,
             std::uint8_t latent_exp, std::uint32_t mask) {
  std::size_t weights = 0, rows = 0;
  for (const LayerShape& s : LAYERS) {
    weights += groups_of(s) * pairs_of(s) * 2 * LANES;
    rows += groups_of(s) * LANES;
  }
  // every part is a multiple of 32 bytes, so all rows are aligned
  const std::size_t bytes = weights * sizeof(std::int16_t) + 2 * rows * sizeof(std::int32_t);
  block_.reset(allocate_block(bytes));
  std::memset(block_.get(), 0, bytes);
  auto* weight = static_cast<std::int16_t*>(block_.get());
  auto* bias = reinterpret_cast<std::int32_t*>(weight + weights);
  std::int32_t* shift = bias + rows;
  for (std::size_t n = 0; n < N_LAYERS; ++n) {
    pack_layer(n, layers[n], weight, bias, shift);
    weight += groups_of(LAYERS[n]) * pairs_of(LAYERS[n]) * 2 * LANES;
    bias += groups_of(LAYERS[n]) * LANES;
    shift += groups_of(LAYERS[n]) * LANES;
  }
  check_squares(residual_exp, latent_exp, LAYERS[ENCODER_2].out);
  for (std::size_t i = 0; i < N_FEATURES; ++i) {
    packed_.residual_exp[i] = residual_exp[i];
    packed_.keep[i] = (mask >> i & 1U) != 0 ? std::int16_t{-1} : std::int16_t{0};
  }
  packed_.latent_exp = latent_exp;
  use_vectors(true);
}

}  // namespace microrisk
