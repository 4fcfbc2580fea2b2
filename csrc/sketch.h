// Count sketches (Charikar, Chen & Farach-Colton 2002) of the components of a step: random linear
// maps into `dim` buckets whose inner products are, in the mean over seeds, those of the vectors.
//
// Where an element goes depends on (seed, parameter, element of the whole tensor) alone. The 16
// elements of a row go to 16 consecutive buckets, each with a sign of its own:
//
//   S(v)[(start(r) + l) mod dim] += sign(16 r + l) v[16 r + l]
//
// A row is a vector in memory at both ends, so that the loop stays one over vectors, and the hash
// costs 1/16 of the noise. Starts are any buckets: two elements of different rows meet with
// probability 1 / dim wherever they are. (Starts at multiples of 16 would let those of a column of
// a matrix, often alike, share dim / 16 buckets, for a twentieth of the time of a sketched step.)
//
// Bits: Philox as in noise.h, key = seed, stream = sketch, step 0, one counter for 64 elements.
//       Words 0 and 1, low bits first, are the signs, 1 for minus; words 2 and 3, low halves first,
//       are numbers h of 16 bits, of which start = h dim / 2^16 for each of four rows.
#pragma once

#include <cstdint>

namespace fastllc {

// The components with their coefficients, as python/fastllc/samplers/metrics.py defines them.
enum Component : int {
    kScaledGrad,
    kUnscaledGrad,
    kLocalization,
    kWeightDecay,
    kNoise,
    kComponents
};

constexpr std::int64_t kRow = 16;
constexpr std::int64_t kHashed = 4 * kRow;    // elements a counter
constexpr std::int64_t kMaxSketch = 1 << 16;  // buckets

}  // namespace fastllc
