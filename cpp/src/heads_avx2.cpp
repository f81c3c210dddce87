// AVX2 form of the heads. Every function carries its own target, so that the rest of the library keeps the baseline
// instruction set and the choice is made at run time.
#include "microrisk/heads.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <utility>

#define MICRORISK_AVX2 __attribute__((target("avx2")))
#define MICRORISK_AVX2_INLINE __attribute__((target("avx2"), always_inline)) inline

namespace microrisk {

namespace {

MICRORISK_AVX2_INLINE __m256i load(const void* p) {
  return _mm256_load_si256(static_cast<const __m256i*>(p));
}

// 16-bit activations of up to 32 neurons.
struct alignas(32) Act {
  std::int16_t v[32];
};

// The two inputs of pair k in every lane.
MICRORISK_AVX2_INLINE __m256i pair(const std::int16_t* in, std::size_t k) {
  std::int32_t both;
  __builtin_memcpy(&both, in + 2 * k, sizeof(both));
  return _mm256_set1_epi32(both);
}

// acc[g] = bias + weight * in. All groups run together, so that their chains of additions overlap.
template <std::size_t LAYER>
MICRORISK_AVX2_INLINE void accumulate(const PackedWeights& w, const std::int16_t* in, __m256i* acc) {
  constexpr std::size_t GROUPS = groups_of(LAYERS[LAYER]), PAIRS = pairs_of(LAYERS[LAYER]);
  const std::int16_t* weight = w.weight[LAYER];
  for (std::size_t g = 0; g < GROUPS; ++g) acc[g] = load(w.bias[LAYER] + g * LANES);
#pragma GCC unroll 2
  for (std::size_t k = 0; k < PAIRS; ++k) {
    const __m256i x = pair(in, k);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < GROUPS; ++g) {
      acc[g] = _mm256_add_epi32(acc[g], _mm256_madd_epi16(x, load(weight + (g * PAIRS + k) * 2 * LANES)));
    }
  }
}

// Shift, cut to the code's range, and pack to 16 bits. `acc` has room for an even number of groups.
template <std::size_t LAYER>
MICRORISK_AVX2_INLINE void activate(const PackedWeights& w, __m256i* acc, std::int16_t* out) {
  constexpr std::size_t GROUPS = groups_of(LAYERS[LAYER]);
  const __m256i low = _mm256_set1_epi32(LAYERS[LAYER].activation == Activation::relu ? 0 : CODE_LOW);
  const __m256i high = _mm256_set1_epi32(CODE_HIGH);
#pragma GCC unroll 4
  for (std::size_t g = 0; g < GROUPS; ++g) {
    const __m256i shifted = _mm256_srav_epi32(acc[g], load(w.shift[LAYER] + g * LANES));
    acc[g] = _mm256_min_epi32(_mm256_max_epi32(shifted, low), high);
  }
  if constexpr (GROUPS % 2 != 0) acc[GROUPS] = _mm256_setzero_si256();
#pragma GCC unroll 2
  for (std::size_t g = 0; g < GROUPS; g += 2) {
    // the pack works within 128-bit halves: put the quarters back in order
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(acc[g], acc[g + 1]), 0xD8);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + g * LANES), packed);
  }
}

template <std::size_t LAYER>
MICRORISK_AVX2_INLINE void dense(const PackedWeights& w, const Act& in, Act& out) {
  __m256i acc[4];
  accumulate<LAYER>(w, in.v, acc);
  activate<LAYER>(w, acc, out.v);
}

MICRORISK_AVX2_INLINE std::int32_t sum(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
  return _mm_cvtsi128_si32(s);
}

MICRORISK_AVX2_INLINE __m256i squares(const Act& a) {
  const __m256i low = load(a.v), high = load(a.v + 16);
  return _mm256_add_epi32(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high));
}

MICRORISK_AVX2_INLINE std::int32_t largest(__m256i low, __m256i high) {
  const __m256i m = _mm256_max_epi16(_mm256_abs_epi16(low), _mm256_abs_epi16(high));
  const __m128i h = _mm_max_epi16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  // the smallest-of-eight instruction on the complement gives the largest
  const __m128i min = _mm_minpos_epu16(_mm_xor_si128(h, _mm_set1_epi16(-1)));
  return 0xFFFF ^ (_mm_cvtsi128_si32(min) & 0xFFFF);
}

// Eight weighted squares of masked residuals.
MICRORISK_AVX2_INLINE __m256i residuals(const PackedWeights& w, const Act& x, const Act& recon, std::size_t at) {
  const __m128i code = _mm_load_si128(reinterpret_cast<const __m128i*>(x.v + at));
  const __m128i back = _mm_load_si128(reinterpret_cast<const __m128i*>(recon.v + at));
  const __m128i keep = _mm_load_si128(reinterpret_cast<const __m128i*>(w.keep + at));
  const __m256i r = _mm256_cvtepi16_epi32(_mm_and_si128(_mm_sub_epi16(code, back), keep));
  return _mm256_sllv_epi32(_mm256_mullo_epi32(r, r), load(w.residual_exp + at));
}

// Weighted squares of what the decoder left over, and of the latent values.
MICRORISK_AVX2_INLINE std::int32_t surprise(const PackedWeights& w, const Act& x, const Act& recon, const Act& latent) {
  __m256i total = residuals(w, x, recon, 0);
#pragma GCC unroll 3
  for (std::size_t at = LANES; at < N_FEATURES; at += LANES)
    total = _mm256_add_epi32(total, residuals(w, x, recon, at));
  const __m256i mu = load(latent.v);  // lanes behind the last latent are zero
  const __m256i mu2 = _mm256_sll_epi32(_mm256_madd_epi16(mu, mu), _mm_cvtsi32_si128(w.latent_exp));
  return sum(_mm256_add_epi32(total, mu2));
}

}  // namespace

MICRORISK_AVX2 void score_avx2(const PackedWeights& w, const std::int8_t* codes, std::int32_t* heads) noexcept {
  Act x, white, a, b, latent, e, f;
  const auto* raw = reinterpret_cast<const __m128i*>(codes);
  const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(raw)), high = _mm256_cvtepi8_epi16(_mm_loadu_si128(raw + 1));
  _mm256_store_si256(reinterpret_cast<__m256i*>(x.v), low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(x.v + 16), high);
  heads[0] = largest(low, high);
  // The layers of the autoencoder wait for each other; those of the other heads are put between them to fill the gaps.
  dense<ENCODER_0>(w, x, a);
  dense<EXPOSURE_0>(w, x, e);
  dense<ENCODER_1>(w, a, b);
  dense<EXPOSURE_1>(w, e, f);
  dense<ENCODER_2>(w, b, latent);
  dense<MAHA_0>(w, x, white);
  dense<DECODER_0>(w, latent, a);
  __m256i exposure[1];
  accumulate<EXPOSURE_2>(w, f.v, exposure);
  dense<DECODER_1>(w, a, b);
  heads[1] = sum(squares(white));
  dense<DECODER_2>(w, b, a);
  heads[2] = surprise(w, x, a, latent);
  heads[3] = _mm256_cvtsi256_si32(exposure[0]);
}

}  // namespace microrisk

#endif
