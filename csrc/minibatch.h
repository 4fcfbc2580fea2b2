// Minibatches of tensors in memory: which samples a chain sees, and their rows one after another.
// Sizes and indices are 64-bit; every pointer has been checked by the caller.
#pragma once

#include <cstdint>

namespace fastllc {

// out[chain][i] = the sample that comes i-th in this epoch of a chain, i in [0, count): the first
// of a random order of n samples, or draws with replacement. A function of (key, epoch) alone.
template <class Index>
void order_samples(const std::uint64_t* keys, std::int64_t n_chains, std::uint32_t epoch,
                   std::int64_t n, bool replacement, Index* out, std::int64_t count, int threads);

// A tensor of samples, [n, width, *] in row-major order, and where those of a minibatch go.
struct Samples {
    std::uint64_t source, target;
    std::int64_t width, item;    // columns of a row, bytes of one
    std::int64_t columns_first;  // 1: target [chain, width, batch], 0: [chain, batch, width]
};

// Takes the rows index[chain][0..batch) of every tensor; chains are `stride` indices apart.
template <class Index>
void take_rows(const Samples* tensors, std::int64_t n_tensors, const Index* index,
               std::int64_t n_chains, std::int64_t stride, std::int64_t batch, int threads);

}  // namespace fastllc
