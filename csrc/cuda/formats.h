// How one weight lies in memory (../half.h), and the elements of one counter of the noise, a
// "unit": 4, or 2 in double precision, which are 16 bytes of what is computed with.
#pragma once

#include <cstdint>

#include "../half.h"
#include "../scalar.h"
#include "device.h"

namespace fastllc::cuda {

template <class L>
struct Full {
    using Lanes = L;
    using Real = typename L::Real;
    using Stored = Real;
    using Residual = Real;
    static constexpr bool kLow = false;

    static FASTLLC_INLINE Real load(Stored w) { return w; }
};

struct Bfloat16 {
    using Lanes = scalar::Single;
    using Real = float;
    using Bits = Bfloat16Bits<Lanes>;
    using Stored = std::uint16_t;
    using Residual = std::int16_t;
    static constexpr bool kLow = true;

    static FASTLLC_INLINE float load(Stored w) { return Bits::expand(w); }
    static FASTLLC_INLINE float load(Stored w, Residual residual) {
        return Bits::expand(w, std::uint32_t(std::int32_t(residual)));
    }
    // Returns the weight as it can be read back without the residual.
    static FASTLLC_INLINE float store(float x, Stored& w, Residual& residual) {
        std::uint32_t low;
        w = Stored(Bits::nearest(x, low));
        residual = Residual(low);
        return Bits::expand(w);
    }
    static FASTLLC_INLINE float store_at_random(float x, std::uint32_t random, Stored& w) {
        w = Stored(Bits::at_random(x, random));
        return Bits::expand(w);
    }
};

struct Float16 {
    using Lanes = scalar::Single;
    using Real = float;
    using Bits = Float16Bits<Lanes>;
    using Stored = std::uint16_t;
    using Residual = float;
    static constexpr bool kLow = true;

    static FASTLLC_INLINE float load(Stored w) { return Bits::expand(w); }
    static FASTLLC_INLINE float load(Stored w, Residual full) {
        return Bits::nearest(full) == w ? full : Bits::expand(w);
    }
    static FASTLLC_INLINE float store(float x, Stored& w, Residual& residual) {
        w = Stored(Bits::nearest(x));
        residual = x;
        return Bits::expand(w);
    }
    static FASTLLC_INLINE float store_at_random(float x, std::uint32_t random, Stored& w) {
        w = Stored(Bits::at_random(x, random));
        return Bits::expand(w);
    }
};

// Which elements [begin, end) of a tile are in the tensor, and whether its arrays are aligned.
struct Extent {
    int begin, end;
    bool aligned;

    FASTLLC_INLINE bool has(int at) const { return begin <= at && at < end; }
    // As a mask would say it.
    FASTLLC_INLINE std::uint32_t among(int at, int n) const {
        std::uint32_t bytes = 0;
        for (int i = 0; i < n; ++i) bytes |= std::uint32_t(has(at + i)) << 8 * i;
        return bytes;
    }
    FASTLLC_INLINE bool has_vector(int at, int n) const {
        return aligned && begin <= at && at + n <= end;
    }
};

// One array's elements of a unit.
template <class T, int n>
struct alignas(sizeof(T) * n) Unit {
    T x[n];

    // From an array given by the address of element 0 of the tile, be that in the tensor or not.
    FASTLLC_INLINE void load(std::uint64_t array, int at) {
        *this = load_vector(reinterpret_cast<const Unit*>(address(array, at)));
    }
    FASTLLC_INLINE void load(std::uint64_t array, int at, const Extent& extent) {
        for (int i = 0; i < n; ++i)
            x[i] = extent.has(at + i) ? *reinterpret_cast<const T*>(address(array, at + i)) : T{};
    }
    FASTLLC_INLINE void store(std::uint64_t array, int at) const {
        store_vector(reinterpret_cast<Unit*>(address(array, at)), *this);
    }
    FASTLLC_INLINE void store(std::uint64_t array, int at, const Extent& extent) const {
        for (int i = 0; i < n; ++i)
            if (extent.has(at + i)) *reinterpret_cast<T*>(address(array, at + i)) = x[i];
    }

private:
    static FASTLLC_INLINE std::uint64_t address(std::uint64_t array, int at) {
        return array + std::uint64_t(std::int64_t{at} * std::int64_t(sizeof(T)));
    }
};

// The n bytes of a mask for the unit, the first lowest; zero beyond the tensor.
template <int n>
FASTLLC_INLINE std::uint32_t load_mask(std::uint64_t mask, int at, const Extent& extent) {
    Unit<std::uint8_t, n> bytes;
    extent.has_vector(at, n) ? bytes.load(mask, at) : bytes.load(mask, at, extent);
    std::uint32_t all = 0;
    for (int i = 0; i < n; ++i) all |= std::uint32_t{bytes.x[i]} << 8 * i;
    return all;
}

}  // namespace fastllc::cuda
