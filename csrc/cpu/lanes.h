// Vectors of one instruction set, as GCC/Clang vector extensions: what noise.h and the kernels
// need, and the few operations that the extensions cannot spell. Included once per instruction
// set, inside its namespace, with kBytes set to the register width; all names have internal
// linkage there, so no wide code can be shared with another file (a COMDAT would be).

// Comparisons give lanes of all ones or all zeros; `mask ? a : b` selects by lane.
typedef float F32 __attribute__((vector_size(kBytes)));
typedef std::uint32_t U32 __attribute__((vector_size(kBytes)));
typedef std::int32_t I32 __attribute__((vector_size(kBytes)));
typedef double F64 __attribute__((vector_size(kBytes)));
typedef std::uint64_t U64 __attribute__((vector_size(kBytes)));
typedef std::int64_t I64 __attribute__((vector_size(kBytes)));

constexpr int kQuads = kBytes / 16;

// a b + c, rounded once.
#if defined(__AVX512F__)
inline F32 fma_lanes(F32 a, F32 b, F32 c) {
    return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif defined(__AVX2__)
inline F32 fma_lanes(F32 a, F32 b, F32 c) {
    return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#elif defined(__SSE2__)
// In double precision the product is exact. The sum is rounded to odd, that is to the neighbour
// with an odd last bit unless it is exact, so that rounding once more to single precision gives
// what one rounding would have (Boldo & Melquiond 2008).
inline F64 fma_to_odd(F64 a, F64 b, F64 c) {
    const F64 product = a * b, sum = product + c, part = sum - product;
    const F64 error = (product - (sum - part)) + (c - part);
    const U64 bits = (U64)sum, even = (bits & 1) - 1;
    const U64 towards = 1 - 2 * (((U64)error ^ bits) >> 63);
    const U64 inexact = (U64)((error < 0) | (error > 0));  // neither for NaN
    return (F64)(bits + (towards & even & inexact));
}
inline F32 fma_lanes(F32 a, F32 b, F32 c) {
    const auto low = [](F32 x) { return (F64)_mm_cvtps_pd((__m128)x); };
    const auto high = [&](F32 x) { return low((F32)_mm_movehl_ps((__m128)x, (__m128)x)); };
    return (F32)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)fma_to_odd(low(a), low(b), low(c))),
                              _mm_cvtpd_ps((__m128d)fma_to_odd(high(a), high(b), high(c))));
}
#else
inline F32 fma_lanes(F32 a, F32 b, F32 c) {
    for (int i = 0; i < kBytes / 4; ++i) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return a;
}
#endif

#if defined(__AVX512F__)
// The masked forms, since GCC 12 warns of the undefined pass-through of the plain ones.
inline F32 sqrt_lanes(F32 x) { return (F32)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
inline F64 sqrt_lanes(F64 x) { return (F64)_mm512_maskz_sqrt_pd(0xff, (__m512d)x); }
inline U64 multiply_low_lanes(U64 a, U64 b) {
    return (U64)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
inline F32 sqrt_lanes(F32 x) { return (F32)_mm256_sqrt_ps((__m256)x); }
inline F64 sqrt_lanes(F64 x) { return (F64)_mm256_sqrt_pd((__m256d)x); }
inline U64 multiply_low_lanes(U64 a, U64 b) {
    return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#elif defined(__SSE2__)
inline F32 sqrt_lanes(F32 x) { return (F32)_mm_sqrt_ps((__m128)x); }
inline F64 sqrt_lanes(F64 x) { return (F64)_mm_sqrt_pd((__m128d)x); }
inline U64 multiply_low_lanes(U64 a, U64 b) { return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
template <class V>
inline V sqrt_lanes(V x) {
    for (unsigned i = 0; i < sizeof(V) / sizeof(x[0]); ++i) x[i] = std::sqrt(x[i]);
    return x;
}
inline U64 multiply_low_lanes(U64 a, U64 b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif

// Interleaves the low (Half = 0) or high (Half = 1) halves of each 16-byte quad of a and b.
template <int Half, class V, std::size_t... I>
inline V interleave(V a, V b, std::index_sequence<I...>) {
    constexpr int n = sizeof...(I), per_quad = n / kQuads, half = per_quad / 2;
    // Element I of the result: the pair index within its quad, from a when even, from b when odd.
#define FASTLLC_SOURCE(i)                                                                          \
    (int(i) / per_quad * per_quad + Half * half + int(i) % per_quad / 2 + (int(i) % 2) * n)
    return __builtin_shufflevector(a, b, FASTLLC_SOURCE(I)...);
#undef FASTLLC_SOURCE
}
template <int Half, class V>
inline V interleave(V a, V b) {
    return interleave<Half>(a, b, std::make_index_sequence<sizeof(V) / sizeof(a[0])>{});
}

// In every quad, the sums of neighbours in that of a, then in that of b.
template <std::size_t... I>
inline F32 add_neighbours(F32 a, F32 b, std::index_sequence<I...>) {
    constexpr int n = sizeof...(I);
#define FASTLLC_SOURCE(i) (int(i) / 4 * 4 + int(i) % 2 * 2 + int(i) % 4 / 2 * n)
    return __builtin_shufflevector(a, b, FASTLLC_SOURCE(I)...) +
           __builtin_shufflevector(a, b, (FASTLLC_SOURCE(I) + 1)...);
#undef FASTLLC_SOURCE
}
inline F32 add_neighbours(F32 a, F32 b) {
    return add_neighbours(a, b, std::make_index_sequence<kBytes / 4>{});
}

// The sums of neighbouring quads in a, then in b.
template <std::size_t... I>
inline F32 add_quads(F32 a, F32 b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (int(I) / 4 * 8 + int(I) % 4)...) +
           __builtin_shufflevector(a, b, (int(I) / 4 * 8 + int(I) % 4 + 4)...);
}
inline F32 add_quads(F32 a, F32 b) {
    return add_quads(a, b, std::make_index_sequence<kBytes / 4>{});
}

// In every quad, the 4 x 4 matrix whose columns are x[0..3].
inline void transpose_quads(F32 x[4]) {
    const F64 a = (F64)interleave<0>(x[0], x[1]), b = (F64)interleave<0>(x[2], x[3]);
    const F64 c = (F64)interleave<1>(x[0], x[1]), d = (F64)interleave<1>(x[2], x[3]);
    x[0] = (F32)interleave<0>(a, b);
    x[1] = (F32)interleave<1>(a, b);
    x[2] = (F32)interleave<0>(c, d);
    x[3] = (F32)interleave<1>(c, d);
}

template <class V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V>
inline void store(void* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

// The two precisions: what noise.h and the kernels ask of a lane type.
struct Single {
    using Scalar = float;
    using Real = F32;
    using Word = U32;
    using Int = I32;
    static constexpr int kWidth = kBytes / 4;
    static constexpr int kPerCounter = 4;  // elements

    static F32 sqrt(F32 x) { return sqrt_lanes(x); }
    static F32 fma(F32 a, F32 b, F32 c) { return fma_lanes(a, b, c); }
    static I32 bits(F32 x) { return (I32)x; }
    static F32 real(I32 x) { return (F32)x; }
    template <class V>
    static V select(I32 mask, V a, V b) {
        return mask ? a : b;
    }
    static F32 from_int(I32 x) { return __builtin_convertvector(x, F32); }
    static I32 to_int(F32 x) { return __builtin_convertvector(x, I32); }
    // word + 1/2, the word rounded first as torch does
    static F32 midpoint(U32 word) {
#if defined(__AVX512F__)
        return __builtin_convertvector(word, F32) + 0.5f;
#else
        // Both halves convert exactly and their sum rounds once, as one conversion would.
        return (from_int((I32)(word >> 16)) * 65536.0f + from_int((I32)(word & 0xffffu))) + 0.5f;
#endif
    }
    static F32 exponent(I32 bits) { return from_int(bits >> 23); }
    static F32 flip_sign(F32 x, U32 sign) { return (F32)((U32)x ^ sign); }
    static U64 multiply_low(U64 a, std::uint32_t b) { return multiply_low_lanes(a, U64{} + b); }

    // The low words of the counters of 8 * kWidth elements, from that of the first or from a list.
    // Lane (quad q, place j) works on counter kQuads j + q, so that a final transposition inside
    // quads leaves the elements in memory order.
    static FASTLLC_INLINE void counters(std::uint64_t first, U64 (&low)[4]) {
        const U64 counter = U64{} + first, next = counter + std::uint64_t(kWidth);
        low[0] = counter + offsets<0>(), low[1] = counter + offsets<1>();
        low[2] = next + offsets<0>(), low[3] = next + offsets<1>();
    }
    static FASTLLC_INLINE void counters(const std::uint64_t* list, U64 (&low)[4]) {
        for (int v = 0; v < 4; ++v)
            for (int i = 0; i < kWidth / 2; ++i)
                low[v][i] = list[v / 2 * kWidth + offset(2 * i + v % 2)];
    }
    // Their random words: in every four vectors radius, angle, radius, angle.
    static FASTLLC_INLINE void words(const noise::RoundKeys<U64>& keys, std::uint64_t high,
                                     std::uint32_t c1, const U64 (&low)[4], U32 (&word)[8]) {
        U64 out[4][4];
        noise::philox<Single>(keys, low, c1, high, out);
        for (int i = 0; i < 8; ++i) {
            const U64 even = out[i % 4][i / 4 * 2], odd = out[i % 4][i / 4 * 2 + 1];
            word[i] = (U32)((even & 0xffffffffu) | (odd << 32));
        }
    }
    // From cosine, sine, cosine, sine to memory order.
    static FASTLLC_INLINE void to_memory_order(F32 (&x)[4]) { transpose_quads(x); }

    // totals[m] += sum of the lanes of sums[m], neighbours first (moments.h). With weights in DRAM
    // this is most of what metrics cost, and shuffles bind it: hence one tree over all sums
    // (RMSpropSGLD with AVX-512: 1.03x of the plain step; each four transposed, 1.08x).
    template <int n, int rows>
    static FASTLLC_INLINE void add_lanes(const F32 (&sums)[n][rows], double* totals) {
        typedef float Quad __attribute__((vector_size(16)));
        typedef double Quad64 __attribute__((vector_size(32)));
        constexpr int groups = n / 4, half = (groups * rows + 3) / 4 * 2;
        F32 quads[2 * half] = {}, pairs[half], all[half / 2];
        for (int i = 0; i < groups * rows; ++i) {
            const auto at = [&](int m) { return sums[i / rows * 4 + m][i % rows]; };
            quads[i] = add_neighbours(add_neighbours(at(0), at(1)), add_neighbours(at(2), at(3)));
        }
        for (int i = 0; i < half; ++i) pairs[i] = add_quads(quads[2 * i], quads[2 * i + 1]);
        for (int i = 0; i < half / 2; ++i) all[i] = add_quads(pairs[2 * i], pairs[2 * i + 1]);
        for (int m = 0; m < n; m += 4) {
            const Quad sum = load<Quad>(reinterpret_cast<const float*>(all) + m);
            store(totals + m, load<Quad64>(totals + m) + __builtin_convertvector(sum, Quad64));
        }
    }

private:
    static constexpr int offset(int lane) { return kQuads * (lane % 4) + lane / 4; }
    template <int Odd>
    static U64 offsets() {
        U64 x{};
        for (int i = 0; i < kWidth / 2; ++i) x[i] = std::uint64_t(offset(2 * i + Odd));
        return x;
    }
};

struct Double {
    using Scalar = double;
    using Real = F64;
    using Word = U64;
    using Int = I64;
    static constexpr int kWidth = kBytes / 8;
    static constexpr int kPerCounter = 2;

    static F64 sqrt(F64 x) { return sqrt_lanes(x); }
    static F64 fma(F64 a, F64 b, F64 c) { return a * b + c; }  // two roundings: moments.h
    static I64 bits(F64 x) { return (I64)x; }
    static F64 real(I64 x) { return (F64)x; }
    static F64 select(I64 mask, F64 a, F64 b) { return mask ? a : b; }
    // Below AVX-512 no instruction converts 64-bit integers. Halves placed in the mantissa of
    // 2^52 and 2^84 are exact, and their sum rounds once.
    static F64 from_int(I64 x) {
        const U64 high = ((U64)x >> 32 ^ 0x80000000u) | 0x4530000000000000u;
        const U64 low = ((U64)x & 0xffffffffu) | 0x4330000000000000u;
        return ((F64)high - (0x1p84 + 0x1p63 + 0x1p52)) + (F64)low;
    }
    // word + 1/2, rounded once as torch does
    static F64 midpoint(U64 word) {
        const U64 high = (word >> 32) | 0x4530000000000000u;
        const U64 low = (word & 0xffffffffu) | 0x4330000000000000u;
        return ((F64)high - 0x1p84) + (((F64)low - 0x1p52) + 0.5);
    }
    static F64 exponent(I64 bits) {
        const U64 biased = ((U64)bits + (1023ull << 52)) >> 52;
        return (F64)(biased | 0x4330000000000000u) - (0x1p52 + 1023.0);
    }
    static F64 flip_sign(F64 x, U64 sign) { return (F64)((U64)x ^ sign); }
    static U64 multiply_low(U64 a, std::uint32_t b) { return multiply_low_lanes(a, U64{} + b); }

    static FASTLLC_INLINE void counters(std::uint64_t first, U64 (&low)[4]) {
        for (int v = 0; v < 4; ++v) low[v] = offsets() + (first + std::uint64_t(v * kWidth));
    }
    static FASTLLC_INLINE void counters(const std::uint64_t* list, U64 (&low)[4]) {
        for (int v = 0; v < 4; ++v)
            for (int i = 0; i < kWidth; ++i) low[v][i] = list[v * kWidth + offset(i)];
    }
    static FASTLLC_INLINE void words(const noise::RoundKeys<U64>& keys, std::uint64_t high,
                                     std::uint32_t c1, const U64 (&low)[4], U64 (&word)[8]) {
        U64 out[4][4];
        noise::philox<Double>(keys, low, c1, high, out);
        for (int i = 0; i < 8; ++i) {
            const U64 top = out[i % 2 * 2][i / 2], bottom = out[i % 2 * 2 + 1][i / 2];
            word[i] = (top << 32) | (bottom & 0xffffffffu);
        }
    }
    static FASTLLC_INLINE void to_memory_order(F64 (&x)[4]) {
        const F64 a = x[0], b = x[2];
        x[0] = interleave<0>(a, x[1]);
        x[1] = interleave<1>(a, x[1]);
        x[2] = interleave<0>(b, x[3]);
        x[3] = interleave<1>(b, x[3]);
    }

    template <int n, int rows>
    static FASTLLC_INLINE void add_lanes(const F64 (&sums)[n][rows], double* totals) {
        for (int m = 0; m < n; ++m) {
            double lane[rows * kWidth];
            for (int row = 0; row < rows; ++row) store(lane + row * kWidth, sums[m][row]);
            for (int left = rows * kWidth / 2; left > 0; left /= 2)
                for (int i = 0; i < left; ++i) lane[i] = lane[2 * i] + lane[2 * i + 1];
            totals[m] += lane[0];
        }
    }

private:
    static constexpr int offset(int lane) { return kQuads * (lane % 2) + lane / 2; }
    static U64 offsets() {
        U64 x{};
        for (int lane = 0; lane < kWidth; ++lane) x[lane] = std::uint64_t(offset(lane));
        return x;
    }
};
