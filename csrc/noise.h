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
enum class Stream : std::uint8_t {
    proposal = 0,
    rounding = 1,
    momentum = 2,
    sketch = 3,
    minibatch = 4
};

// The high half of the counters of one tensor in one step.
FASTLLC_INLINE std::uint64_t address(std::uint32_t step, Stream stream, std::uint32_t param) {
    return std::uint64_t{param} << 40 | std::uint64_t(stream) << 32 | step;
}

// The round keys, as vectors: a broadcast of each for every tile costs AVX2 a sixth of the noise.
template <class U>
struct RoundKeys {
    U k0[10];
    U k1[10];

    FASTLLC_INLINE explicit RoundKeys(std::uint64_t key) {
        auto lo = std::uint32_t(key), hi = std::uint32_t(key >> 32);
        for (int round = 0; round < 10; ++round) {
            k0[round] = U{} + lo;
            k1[round] = U{} + hi;
            lo += 0x9E3779B9u;
            hi += 0xBB67AE85u;
        }
    }
};

// Philox4x32-10 of n counters side by side, so that their chains of multiplications overlap:
// c[word][counter]. Each 32-bit word lives in the low half of a 64-bit lane, and the high half is
// left dirty, since the next product reads low halves only: no masks, two multiplications a round.
// The counters {low, c1, high} differ in their lowest word only, so that half of the first two
// rounds is the same for all.
template <class L, int n, class U = typename L::U64>
FASTLLC_INLINE void philox(const RoundKeys<U>& keys, const U (&low)[n], std::uint32_t c1,
                           std::uint64_t high, U (&c)[4][n]) {
    constexpr std::uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
    const U p1 = L::multiply_low(U{} + high, m1);
    const U p2 = L::multiply_low((p1 >> 32) ^ keys.k0[0] ^ std::uint64_t{c1}, m0);
    const U x0 = p1 ^ keys.k0[1], x2 = (p2 >> 32) ^ keys.k1[1], c2 = keys.k1[0] ^ (high >> 32);
    for (int i = 0; i < n; ++i) {
        const U p0 = L::multiply_low(low[i], m0);
        const U p3 = L::multiply_low((p0 >> 32) ^ c2, m1);
        c[0][i] = (p3 >> 32) ^ x0;
        c[1][i] = p3;
        c[2][i] = p0 ^ x2;
        c[3][i] = p2;
    }
    for (int round = 2; round < 10; ++round)
        for (int i = 0; i < n; ++i) {
            const U p0 = L::multiply_low(c[0][i], m0);
            const U p3 = L::multiply_low(c[2][i], m1);
            c[0][i] = (p3 >> 32) ^ c[1][i] ^ keys.k0[round];
            c[1][i] = p3;
            c[2][i] = (p0 >> 32) ^ c[3][i] ^ keys.k1[round];
            c[3][i] = p0;
        }
}

}  // namespace fastllc::noise
