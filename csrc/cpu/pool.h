// A small thread pool: no OpenMP, since a second runtime beside torch's would fight it, and a
// forked child could not use it.
#pragma once

#include <cstdint>
#include <functional>

namespace fastllc::cpu {

// Calls task(i) once for every i in [0, n), on up to `threads` threads, the caller's among them,
// each in the default floating-point mode (round to nearest, subnormals kept) whatever mode the
// caller is in. Returns when all calls have. Any thread may call it; while one call is in
// progress, others run on their own thread alone. Safe after fork.
void parallel_for(std::int64_t n, int threads, const std::function<void(std::int64_t)>& task);

}  // namespace fastllc::cpu
