// One instruction set: lanes and kernels in a namespace of their own. Everything but the table has
// internal linkage, and no function of a shared header is called out of line: the linker must
// never find wide code under a name that another file uses too.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

#include "../half.h"
#include "../rules.h"
#include "kernels.h"

namespace fastllc::cpu::FASTLLC_ISA {
namespace {
constexpr int kBytes = FASTLLC_BYTES;
#include "lanes.h"

#include "precisions.inl"

#include "blocks.inl"

#include "sketch.inl"

#include "kernels.inl"
}  // namespace
const Kernels kernels = table;
}  // namespace fastllc::cpu::FASTLLC_ISA
