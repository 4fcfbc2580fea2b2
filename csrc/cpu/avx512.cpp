// Compiled with AVX-512 F, DQ, VL and BW.
#define FASTLLC_ISA avx512
#define FASTLLC_BYTES 64
#include "isa.inl"
