// What is summed during a step, per chain and per parameter tensor, over the elements that are
// updated: inner products of g (gradient), d = w - w0, w and of the components of the step before
// their coefficients (rules.h): a (gradient), p (pull), c (weight), n (noise), which are g, d, w
// and the standard normal where nothing preconditions. All from before the update.
//
// The order of summation is fixed, the same for every thread count, instruction set and device:
//   1. a block is the elements [256 b, 256 b + 256) of the whole tensor; in it, lane l of
//      64 / sizeof(T) sums the elements l, l + lanes, ... in this order in the arithmetic's
//      precision, each product added with one rounding (fma) in single and with two in double;
//      where a mask leaves little of blocks, what it leaves of several makes one;
//   2. the lanes are added in pairs of neighbours, then pairs of pairs, ...;
//   3. blocks are added in double in index order within a chunk of 64 blocks, chunks in index order
//      within a span of 64 chunks, and the spans in index order. (Chunks of a large tensor one
//      after the other would be a chain of additions as long as a GPU's whole step.)
#pragma once

#include <cstdint>

namespace fastllc {

// In the order in which they are needed: always; where a and p differ from g and d; where weights
// decay; where they decay and c differs from w.
enum Moment : int { aa, pp, nn, ap, an, pn, ww, gg, dd, gd, ac, cn, cc, kMoments };

constexpr std::int64_t kBlock = 256;
constexpr std::int64_t kChunk = 64 * kBlock;
constexpr std::int64_t kSpan = 64 * kChunk;

}  // namespace fastllc
