// Which instruction set to use: the widest that the processor and the operating system support,
// or the one named by FASTLLC_SIMD.
#pragma once

#include <string>

#include "kernels.h"

namespace fastllc::cpu {

struct Isa {
    const char* name;
    const Kernels* kernels;
    bool supported;
};

// The instruction set in use, chosen at the first call. Throws std::invalid_argument if
// FASTLLC_SIMD names an unknown one or one that this processor lacks.
const Isa& isa();

}  // namespace fastllc::cpu
