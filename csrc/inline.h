// FASTLLC_INLINE marks what several instruction sets share: always inlined, so that no copy
// compiled for one of them can be linked into another.
#pragma once

#define FASTLLC_INLINE inline __attribute__((always_inline))
