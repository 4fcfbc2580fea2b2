#pragma once

#include <cstdint>

namespace fastllc::cuda::emulated {

// Shuffles the CTAs of each launch; 0: in order.
extern std::uint64_t seed;

}  // namespace fastllc::cuda::emulated
