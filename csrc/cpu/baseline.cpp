// Compiled with nothing beyond what the compiler assumes: SSE2 on x86-64, plain code elsewhere.
#define FASTLLC_ISA baseline
#define FASTLLC_BYTES 16
#include "isa.inl"
