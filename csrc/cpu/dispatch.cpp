#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace fastllc::cpu {
namespace {

#if FASTLLC_X86
// These builtins also ask the operating system whether it saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#endif

Isa choose() {
    const Isa sets[] = {
#if FASTLLC_X86
        {"avx512", &avx512::kernels, has_avx512()},
        {"avx2", &avx2::kernels, has_avx2()},
#endif
        {"baseline", &baseline::kernels, true},
    };
    const char* wanted = std::getenv("FASTLLC_SIMD");
    std::string supported;
    for (const Isa& set : sets) {
        if (!set.supported) continue;
        if (!wanted || !*wanted || std::string(wanted) == set.name) return set;
        supported += std::string(supported.empty() ? "" : ", ") + set.name;
    }
    throw std::invalid_argument("FASTLLC_SIMD must be one that this machine supports (" +
                                supported + "), got '" + wanted + "'");
}

}  // namespace

const Isa& isa() {
    static const Isa chosen = choose();
    return chosen;
}

}  // namespace fastllc::cpu
