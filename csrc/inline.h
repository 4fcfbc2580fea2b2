// FASTLLC_INLINE marks what several instruction sets and the GPU share: always inlined, so that no
// copy compiled for one of them can be linked into another.
#pragma once

#if defined(__CUDACC__)
#    define FASTLLC_INLINE __host__ __device__ inline __attribute__((always_inline))
#else
#    define FASTLLC_INLINE inline __attribute__((always_inline))
#endif
