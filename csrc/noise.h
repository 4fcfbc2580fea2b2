// Normal deviates as a pure function of their address (key, step, stream, parameter, element).
//
// Bits:    Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011), key = 64-bit seed,
//          counter = { element / n : 64 bits, parameter : 24, stream : 8, step : 32 }
//          with n = 4 elements a block in single and n = 2 in double precision.
// Normals: Box-Muller on pairs of uniforms, radius from the first and angle from the second;
//          a pair fills an even element with the cosine and the next one with the sine.
//
// Everything is a template over "lanes": the same text serves vectors of any width and plain
// scalars. Only + - * and sqrt, each correctly rounded, so that every width gives the same bits
// (the build switches contraction off). A change of any bit here is a new kFormat.
#pragma once

#include <cstdint>

#include "inline.h"
#include "polynomials.h"

namespace fastllc::noise {

constexpr int kFormat = 1;

// Uses of noise that must never meet. Numbers are part of the format: add, never renumber.
enum class Stream : std::uint8_t { proposal = 0 };

struct Address {
    std::uint64_t key;
    std::uint64_t high;  // parameter << 40 | stream << 32 | step
};

FASTLLC_INLINE Address address(std::uint64_t key, std::uint32_t step, Stream stream,
                               std::uint32_t param) {
    return {key, std::uint64_t{param} << 40 | std::uint64_t(stream) << 32 | step};
}

// The ten round keys of both key words, spread once for a whole tensor.
struct RoundKeys {
    std::uint64_t k0[10];
    std::uint64_t k1[10];

    FASTLLC_INLINE explicit RoundKeys(std::uint64_t key) {
        auto lo = std::uint32_t(key), hi = std::uint32_t(key >> 32);
        for (int round = 0; round < 10; ++round) {
            k0[round] = lo;
            k1[round] = hi;
            lo += 0x9E3779B9u;
            hi += 0xBB67AE85u;
        }
    }
};

// Philox4x32-10. Each 32-bit word lives in the low half of a 64-bit lane; the high half is left
// dirty, since the next product reads low halves only: no masks, two multiplications a round.
template <class L, class U = typename L::U64>
FASTLLC_INLINE void philox(const RoundKeys& keys, U low, std::uint64_t high, U out[4]) {
    U c0 = low, c1 = low >> 32;
    U c2 = U{} + high, c3 = U{} + (high >> 32);
    for (int round = 0; round < 10; ++round) {
        const U p0 = L::multiply_low(c0, 0xD2511F53u);
        const U p1 = L::multiply_low(c2, 0xCD9E8D57u);
        c0 = (p1 >> 32) ^ c1 ^ keys.k0[round];
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ keys.k1[round];
        c3 = p0;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

// Two normals from two random words.
template <class L, class Real = typename L::Real>
FASTLLC_INLINE void box_muller(typename L::Word radius_word, typename L::Word angle_word,
                               Real& even, Real& odd) {
    const Real radius = L::sqrt(minus_two_log<L>(radius_word));
    Real sine, cosine;
    sincos_turn<L>(angle_word, sine, cosine);
    even = radius * cosine;
    odd = radius * sine;
}

}  // namespace fastllc::noise
