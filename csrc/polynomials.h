// -2 log(u) and sin, cos of 2 pi v for the uniforms of Box-Muller, from random words.
//
// A word r of b bits (32 in single, 64 in double precision) stands for the middle of its cell,
// (r + 1/2) 2^-b: never 0, and 1 only by rounding, where the logarithm is exactly 0. Only + - * /
// in a fixed order, no libm: every instruction set and device computes the same bits.
//
// Largest error in units in the last place, at the rounded argument (tests/test_polynomials.py):
//            -2 log u    sin     cos
//   single     1.06      1.64    1.76    every input that can occur
//   double     1.6       1.6     1.7     4 10^7 random inputs and all extremes
// The coefficients are our own minimax fits, rounded: relative error below 2^-24.6 and 2^-54.
#pragma once

#include <cstdint>

#include "inline.h"

namespace fastllc::noise {

// By value: arrays of constants have no address on a GPU.
template <class Real, class T>
FASTLLC_INLINE Real horner(Real, T last) {
    return Real{} + last;
}
template <class Real, class T, class... Rest>
FASTLLC_INLINE Real horner(Real x, T first, Rest... rest) {
    return horner(x, rest...) * x + first;
}

template <class T>
struct Approximation;

template <>
struct Approximation<float> {
    static constexpr int kWordBits = 32, kMantissaBits = 23;
    static constexpr std::int32_t kRootHalf = 0x3f3504f3;  // bits of sqrt(1/2)
    static constexpr float kTwoLog2 = 0x1.62e43p+0f;

    template <class Real>
    static FASTLLC_INLINE Real log(Real z) {
        return horner(z, 0x1.55557ap+0f, 0x1.995eb4p-1f, 0x1.31e374p-1f);
    }
    // sin(pi/2 t) = t sin(t^2), cos(pi/2 t) = 1 + t^2 cos(t^2), |t| <= 1/2
    template <class Real>
    static FASTLLC_INLINE Real sin(Real z) {
        return horner(z, 0x1.921fb6p+0f, -0x1.4abc16p-1f, 0x1.467e72p-4f, -0x1.331b7ep-8f);
    }
    template <class Real>
    static FASTLLC_INLINE Real cos(Real z) {
        return horner(z, -0x1.3bd3a2p+0f, 0x1.03b1a2p-2f, -0x1.4eb87p-6f);
    }
};

template <>
struct Approximation<double> {
    static constexpr int kWordBits = 64, kMantissaBits = 52;
    static constexpr std::int64_t kRootHalf = 0x3fe6a09e00000000;
    static constexpr double kTwoLog2 = 0x1.62e42fefa39efp+0;

    template <class Real>
    static FASTLLC_INLINE Real log(Real z) {
        return horner(z, 0x1.5555555555592p+0, 0x1.999999997ff52p-1, 0x1.24924941dcda9p-1,
                      0x1.c71c52186fb9bp-2, 0x1.74663c0b55ddfp-2, 0x1.39a1ffb4d858ap-2,
                      0x1.2f02d6bf0a38ep-2);
    }
    template <class Real>
    static FASTLLC_INLINE Real sin(Real z) {
        return horner(z, 0x1.921fb54442d18p+0, -0x1.4abbce625bdaep-1, 0x1.466bc6774afcfp-4,
                      -0x1.32d2ccd46b3ebp-8, 0x1.507821d726d3ep-13, -0x1.e2f3f45e1184fp-19,
                      0x1.dfc7600f3a353p-25);
    }
    template <class Real>
    static FASTLLC_INLINE Real cos(Real z) {
        return horner(z, -0x1.3bd3cc9be45a5p+0, 0x1.03c1f081b14eap-2, -0x1.55d3c7dcb8afdp-6,
                      0x1.e1f4fbfe764e3p-11, -0x1.a6ca019f096b4p-16, 0x1.f3ef96bbe54bbp-22);
    }
};

// -2 log((r + 1/2) 2^-b). With x = m 2^e and m in [sqrt 1/2, sqrt 2): g = 2 - 2 m exactly,
// s = g / (4 - g), and -2 log m = 4 atanh(s) = g + s (g + s^2 log(s^2)). The b of the
// argument's scale goes into the exponent.
template <class L, class Real = typename L::Real>
FASTLLC_INLINE Real minus_two_log(typename L::Word r) {
    using T = typename L::Scalar;
    using A = Approximation<T>;
    using Int = decltype(A::kRootHalf + 0);
    constexpr Int one = Int{1} << A::kMantissaBits;
    const auto i = L::bits(L::midpoint(r)) - (A::kRootHalf + A::kWordBits * one);
    const Real e = L::exponent(i);
    const Real minus_two_m =
        L::real((i & (one - 1)) + Int(A::kRootHalf + one) + (Int{1} << (8 * sizeof(T) - 1)));
    const Real g = T(2) + minus_two_m;
    const Real s = g / (T(4) - g), z = s * s;
    return (g + s * (g + z * A::log(z))) - e * A::kTwoLog2;
}

// sin and cos of 2 pi (r + 1/2) 2^-b: the word is the angle in units of 2^-b turns. Its top bits
// choose the nearest quarter turn, the others, as a signed number, are the rest t in quarters.
template <class L, class Real = typename L::Real>
FASTLLC_INLINE void sincos_turn(typename L::Word r, Real& sine, Real& cosine) {
    using T = typename L::Scalar;
    using A = Approximation<T>;
    using Word = decltype(r);
    using Int = typename L::Int;
    constexpr auto sign = std::uint64_t{1} << (A::kWordBits - 1);
    constexpr T unit = T(1) / T(sign) / 2;
    const Real t = L::from_int((Int)((r << 2) | 2)) * unit, z = t * t;
    const Real s = t * A::sin(z), c = T(1) + z * A::cos(z);
    const Word quarter = r + (Word{} + sign / 4);
    const auto odd = (Int)(quarter & (Word{} + sign / 2)) != 0;
    sine = L::flip_sign(L::select(odd, c, s), quarter & (Word{} + sign));
    cosine = L::flip_sign(L::select(odd, s, c), (quarter ^ (quarter << 1)) & (Word{} + sign));
}

}  // namespace fastllc::noise
