// What is not the same on a GPU and in its emulation on the host, where the threads of a CTA come
// one after another and CTAs too.
#pragma once

#include <cstdint>
#include <cstring>

#include "../inline.h"
#include "arguments.h"

namespace fastllc::cuda {

// Calls work(thread) in every thread of the CTA, and returns when all have.
template <class Work>
FASTLLC_INLINE void each_thread(Work work) {
#ifdef __CUDA_ARCH__
    work(int(threadIdx.x));
    __syncthreads();
#else
    for (int thread = 0; thread < kThreads; ++thread) work(thread);
#endif
}

// Makes what this thread has written visible to CTAs that learn of it by a counter.
FASTLLC_INLINE void publish() {
#ifdef __CUDA_ARCH__
    __threadfence();
#endif
}

// Counts one up and returns what was there.
FASTLLC_INLINE std::uint32_t count(std::uint32_t* counter) {
#ifdef __CUDA_ARCH__
    return atomicAdd(counter, 1u);
#else
    return (*counter)++;
#endif
}

FASTLLC_INLINE void add(std::int64_t* to, std::int64_t n) {
#ifdef __CUDA_ARCH__
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(n));
#else
    *to += n;
#endif
}

// What another CTA has written.
template <class T>
FASTLLC_INLINE T fetch(const T* from) {
    return *static_cast<const volatile T*>(from);
}

// The same number, which the compiler cannot know: what is made of it in a loop is made each time,
// not kept in registers.
FASTLLC_INLINE std::uint64_t afresh(std::uint64_t x) {
#ifdef __CUDA_ARCH__
    asm volatile("" : "+l"(x));
#endif
    return x;
}

// Up to 16 bytes by one instruction, aligned. They pass by the first cache, where nobody would look
// for them again; the second keeps them, for small models from one step to the next.
template <class V>
FASTLLC_INLINE V load_vector(const V* from) {
#ifdef __CUDA_ARCH__
    V v;
    if constexpr (sizeof(V) == 16) {
        const auto bits = __ldcg(reinterpret_cast<const uint4*>(from));
        memcpy(&v, &bits, sizeof v);
    } else if constexpr (sizeof(V) == 8) {
        const auto bits = __ldcg(reinterpret_cast<const uint2*>(from));
        memcpy(&v, &bits, sizeof v);
    } else if constexpr (sizeof(V) == 4) {
        const auto bits = __ldcg(reinterpret_cast<const unsigned*>(from));
        memcpy(&v, &bits, sizeof v);
    } else {
        const auto bits = __ldcg(reinterpret_cast<const unsigned short*>(from));
        memcpy(&v, &bits, sizeof v);
    }
    return v;
#else
    return *from;
#endif
}

template <class V>
FASTLLC_INLINE void store_vector(V* to, V v) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(V) == 16) {
        uint4 bits;
        memcpy(&bits, &v, sizeof v);
        __stcg(reinterpret_cast<uint4*>(to), bits);
    } else {
        static_assert(sizeof(V) == 8);
        uint2 bits;
        memcpy(&bits, &v, sizeof v);
        __stcg(reinterpret_cast<uint2*>(to), bits);
    }
#else
    *to = v;
#endif
}

}  // namespace fastllc::cuda
