// Lanes of one: noise.h for a single element at a time, as tests ask for it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastllc::scalar {

template <class To, class From>
To bit_cast(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

struct Single {
    using Scalar = float;
    using Real = float;
    using Word = std::uint32_t;
    using Int = std::int32_t;

    static Int bits(Real x) { return bit_cast<Int>(x); }
    static Real real(Int x) { return bit_cast<Real>(x); }
    static Real select(bool first, Real a, Real b) { return first ? a : b; }
    static Real from_int(Int x) { return static_cast<Real>(x); }
    static Real midpoint(Word x) { return static_cast<Real>(x) + 0.5f; }
    static Real exponent(Int bits) { return static_cast<Real>(bits >> 23); }
    static Real flip_sign(Real x, Word sign) { return bit_cast<Real>(bit_cast<Word>(x) ^ sign); }
};

struct Double {
    using Scalar = double;
    using Real = double;
    using Word = std::uint64_t;
    using Int = std::int64_t;

    static Int bits(Real x) { return bit_cast<Int>(x); }
    static Real real(Int x) { return bit_cast<Real>(x); }
    static Real select(bool first, Real a, Real b) { return first ? a : b; }
    static Real from_int(Int x) { return static_cast<Real>(x); }
    static Real midpoint(Word x) {
        return static_cast<Real>(x >> 32) * 0x1p32 + (static_cast<Real>(x & 0xffffffffu) + 0.5);
    }
    static Real exponent(Int bits) { return static_cast<Real>(bits >> 52); }
    static Real flip_sign(Real x, Word sign) { return bit_cast<Real>(bit_cast<Word>(x) ^ sign); }
};

}  // namespace fastllc::scalar
