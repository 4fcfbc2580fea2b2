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

// Philox4x32-10 of n counters side by side, so that their chains of multiplications overlap:
// c[word][counter]. Each 32-bit word lives in the low half of a 64-bit lane, and the high half is
// left dirty, since the next product reads low halves only: no masks, two multiplications a round.
template <class L, int n, class U = typename L::U64>
FASTLLC_INLINE void philox(const RoundKeys& keys, const U (&low)[n], std::uint64_t high,
                           U (&c)[4][n]) {
    for (int i = 0; i < n; ++i) {
        c[0][i] = low[i], c[1][i] = low[i] >> 32;
        c[2][i] = U{} + high, c[3][i] = U{} + (high >> 32);
    }
    for (int round = 0; round < 10; ++round)
        for (int i = 0; i < n; ++i) {
            const U p0 = L::multiply_low(c[0][i], 0xD2511F53u);
            const U p1 = L::multiply_low(c[2][i], 0xCD9E8D57u);
            c[0][i] = (p1 >> 32) ^ c[1][i] ^ keys.k0[round];
            c[1][i] = p1;
            c[2][i] = (p0 >> 32) ^ c[3][i] ^ keys.k1[round];
            c[3][i] = p0;
        }
}

}  // namespace fastllc::noise
