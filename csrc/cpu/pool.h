// Threads: those of the OpenMP runtime that torch has loaded, found at run time and not linked; a
// small pool of our own where there is none, and in forked children, where OpenMP would hang.
#pragma once

#include <cstdint>
#include <functional>

namespace fastllc::cpu {

// Calls task(i) once for every i in [0, n), on up to `threads` threads, the caller's among them,
// each in the default floating-point mode (round to nearest, subnormals kept) whatever mode the
// caller is in. Returns when all calls have. Any thread may call it. Safe after fork.
void parallel_for(std::int64_t n, int threads, const std::function<void(std::int64_t)>& task);

}  // namespace fastllc::cpu
