// Lanes of one: noise.h and rules.h for a single element at a time, as a thread of a GPU works and
// as tests ask for it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "noise.h"

namespace fastllc::scalar {

template <class To, class From>
FASTLLC_INLINE To bit_cast(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

// Of 64-bit lanes the low halves are multiplied. (Where nvcc is left to see that, it adds a zero to
// the upper half of each product: 20 of some 300 instructions for a counter.)
FASTLLC_INLINE std::uint64_t multiply_low(std::uint64_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
    std::uint64_t product;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(std::uint32_t(a)), "r"(b));
    return product;
#else
    return std::uint64_t{std::uint32_t(a)} * b;
#endif
}

struct Single {
    using Scalar = float;
    using Real = float;
    using Word = std::uint32_t;
    using Int = std::int32_t;
    using U64 = std::uint64_t;
    static constexpr int kPerCounter = 4;  // elements

    static FASTLLC_INLINE Real sqrt(Real x) { return std::sqrt(x); }
    static FASTLLC_INLINE Real fma(Real a, Real b, Real c) { return std::fma(a, b, c); }
    static FASTLLC_INLINE Int bits(Real x) { return bit_cast<Int>(x); }
    static FASTLLC_INLINE Real real(Int x) { return bit_cast<Real>(x); }
    template <class V>
    static FASTLLC_INLINE V select(bool first, V a, V b) {
        return first ? a : b;
    }
    static FASTLLC_INLINE Real from_int(Int x) { return static_cast<Real>(x); }
    // Zero where the result would not fit.
    static FASTLLC_INLINE Int to_int(Real x) {
        return x > -0x1p31f && x < 0x1p31f ? static_cast<Int>(x) : 0;
    }
    static FASTLLC_INLINE Real midpoint(Word x) { return static_cast<Real>(x) + 0.5f; }
    static FASTLLC_INLINE Real exponent(Int bits) { return static_cast<Real>(bits >> 23); }
    static FASTLLC_INLINE Real flip_sign(Real x, Word sign) {
        return bit_cast<Real>(bit_cast<Word>(x) ^ sign);
    }
    static FASTLLC_INLINE U64 multiply_low(U64 a, std::uint32_t b) {
        return scalar::multiply_low(a, b);
    }
    // The words of a counter: radius, angle, radius, angle.
    static FASTLLC_INLINE void words(const U64 (&c)[4][1], Word (&word)[4]) {
        for (int i = 0; i < 4; ++i) word[i] = Word(c[i][0]);
    }
    // The sum of all lanes from those of 4 consecutive ones.
    static FASTLLC_INLINE Real add_lanes(const Real (&x)[4]) {
        return (x[0] + x[1]) + (x[2] + x[3]);
    }
};

struct Double {
    using Scalar = double;
    using Real = double;
    using Word = std::uint64_t;
    using Int = std::int64_t;
    using U64 = std::uint64_t;
    static constexpr int kPerCounter = 2;

    static FASTLLC_INLINE Real sqrt(Real x) { return std::sqrt(x); }
    static FASTLLC_INLINE Real fma(Real a, Real b, Real c) { return a * b + c; }  // see moments.h
    static FASTLLC_INLINE Int bits(Real x) { return bit_cast<Int>(x); }
    static FASTLLC_INLINE Real real(Int x) { return bit_cast<Real>(x); }
    template <class V>
    static FASTLLC_INLINE V select(bool first, V a, V b) {
        return first ? a : b;
    }
    static FASTLLC_INLINE Real from_int(Int x) { return static_cast<Real>(x); }
    static FASTLLC_INLINE Real midpoint(Word x) {
        return static_cast<Real>(x >> 32) * 0x1p32 + (static_cast<Real>(x & 0xffffffffu) + 0.5);
    }
    static FASTLLC_INLINE Real exponent(Int bits) { return static_cast<Real>(bits >> 52); }
    static FASTLLC_INLINE Real flip_sign(Real x, Word sign) {
        return bit_cast<Real>(bit_cast<Word>(x) ^ sign);
    }
    static FASTLLC_INLINE U64 multiply_low(U64 a, std::uint32_t b) {
        return scalar::multiply_low(a, b);
    }
    static FASTLLC_INLINE void words(const U64 (&c)[4][1], Word (&word)[2]) {
        for (int i = 0; i < 2; ++i) word[i] = c[2 * i][0] << 32 | (c[2 * i + 1][0] & 0xffffffffu);
    }
    static FASTLLC_INLINE Real add_lanes(const Real (&x)[2]) { return x[0] + x[1]; }
};

// The random words, and the standard normals, of the elements of one counter.
template <class L>
FASTLLC_INLINE void words(const noise::RoundKeys<std::uint64_t>& keys, std::uint64_t high,
                          std::uint64_t counter, typename L::Word (&word)[L::kPerCounter]) {
    const std::uint64_t low[1] = {counter};
    std::uint64_t c[4][1];
    noise::philox<L>(keys, low, std::uint32_t(counter >> 32), high, c);
    L::words(c, word);
}

template <class L>
FASTLLC_INLINE void normals(const noise::RoundKeys<std::uint64_t>& keys, std::uint64_t high,
                            std::uint64_t counter, typename L::Real (&z)[L::kPerCounter]) {
    typename L::Word word[L::kPerCounter];
    words<L>(keys, high, counter, word);
    for (int i = 0; i < L::kPerCounter; i += 2) {
        const auto radius = L::sqrt(noise::minus_two_log<L>(word[i]));
        typename L::Real sine, cosine;
        noise::sincos_turn<L>(word[i + 1], sine, cosine);
        z[i] = radius * cosine;
        z[i + 1] = radius * sine;
    }
}

}  // namespace fastllc::scalar
