#pragma once

#include <cstdint>
#include <map>

namespace fastllc::cuda::emulated {

// Shuffles the CTAs of each launch; 0: in order.
extern std::uint64_t seed;

// Addresses that are not on device 0, and the device where they are said to be, or -1.
extern std::map<std::uint64_t, int> elsewhere;

}  // namespace fastllc::cuda::emulated
