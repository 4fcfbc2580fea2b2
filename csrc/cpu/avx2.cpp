// Compiled with AVX2.
#define FASTLLC_ISA avx2
#define FASTLLC_BYTES 32
#include "isa.inl"
