#include "../minibatch.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "../noise.h"
#include "pool.h"

namespace fastllc {
namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr std::int64_t kPiece = 1 << 15;  // bytes worth a thread's attention

// 64-bit words of the minibatch stream, two of one counter.
class Words {
public:
    Words(std::uint64_t key, std::uint32_t epoch)
        : keys_(key), high_(noise::address(epoch, noise::Stream::minibatch, 0)) {}

    // A number below n; of 2^64 / n words the same one is drawn, or of one more.
    std::uint64_t below(std::uint64_t n) {
        if (used_ == kWords) refill();
        return static_cast<std::uint64_t>(Wide(words_[used_++]) * n >> 64);
    }

private:
    static constexpr int kCounters = 4, kWords = 2 * kCounters;

    struct Lane {
        using U64 = std::uint64_t;
        static U64 multiply_low(U64 a, std::uint32_t b) { return (a & 0xffffffffu) * b; }
    };

    void refill() {
        std::uint64_t low[kCounters], c[4][kCounters];
        const auto upper = std::uint32_t(next_ >> 32);  // the same for all: next_ is a multiple
        for (auto& counter : low) counter = next_++;
        noise::philox<Lane>(keys_, low, upper, high_, c);
        for (int i = 0; i < kCounters; ++i) {
            words_[2 * i] = c[0][i] << 32 | (c[1][i] & 0xffffffffu);
            words_[2 * i + 1] = c[2][i] << 32 | (c[3][i] & 0xffffffffu);
        }
        used_ = 0;
    }

    noise::RoundKeys<std::uint64_t> keys_;
    std::uint64_t high_, next_ = 0, words_[kWords];
    int used_ = kWords;
};

// Rows lie anywhere: the processor's own prefetching begins anew with each (1.1 to 1.3x).
void prefetch(const unsigned char* row, std::int64_t bytes) {
    for (std::int64_t i = 0; i < std::min<std::int64_t>(bytes, 4096); i += 64)
        __builtin_prefetch(row + i);
}

template <int item>
void transpose(const unsigned char* source, unsigned char* target, std::int64_t width,
               std::int64_t batch) {
    for (std::int64_t i = 0; i < width; ++i)
        std::memcpy(target + i * batch * item, source + i * item, item);
}

template <class Index>
void order(Words& words, std::int64_t n, bool replacement, Index* out, std::int64_t count) {
    const auto total = std::uint64_t(n);
    if (replacement) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = Index(words.below(total));
        return;
    }
    // Fisher & Yates, as far as it is asked for.
    std::vector<Index> all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), Index(0));
    for (std::uint64_t i = 0; i < std::uint64_t(count); ++i) {
        std::swap(all[i], all[i + words.below(total - i)]);
        out[i] = all[i];
    }
}

}  // namespace

template <class Index>
void order_samples(const std::uint64_t* keys, std::int64_t n_chains, std::uint32_t epoch,
                   std::int64_t n, bool replacement, Index* out, std::int64_t count, int threads) {
    cpu::parallel_for(n_chains, threads, [&](std::int64_t chain) {
        Words words(keys[chain], epoch);
        order(words, n, replacement, out + chain * count, count);
    });
}

template <class Index>
void take_rows(const Samples* tensors, std::int64_t n_tensors, const Index* index,
               std::int64_t n_chains, std::int64_t stride, std::int64_t batch, int threads) {
    std::int64_t bytes = 1;
    for (std::int64_t t = 0; t < n_tensors; ++t) bytes += tensors[t].width * tensors[t].item;
    const std::int64_t at_once = std::clamp<std::int64_t>(kPiece / bytes, 1, batch);
    const std::int64_t pieces = (batch + at_once - 1) / at_once;
    cpu::parallel_for(n_chains * pieces, threads, [&](std::int64_t task) {
        const std::int64_t chain = task / pieces, from = task % pieces * at_once;
        const std::int64_t to = std::min(from + at_once, batch);
        for (const Samples* rows = tensors; rows < tensors + n_tensors; ++rows) {
            const auto* const source = reinterpret_cast<const unsigned char*>(rows->source);
            const std::int64_t row = rows->width * rows->item;
            auto* const target =
                reinterpret_cast<unsigned char*>(rows->target) + chain * batch * row;
            const auto sample_at = [&](std::int64_t i) {
                return source + std::int64_t(index[chain * stride + i]) * row;
            };
            for (std::int64_t i = from; i < to; ++i) {
                if (i + 2 < to) prefetch(sample_at(i + 2), row);
                const auto* const sample = sample_at(i);
                if (!rows->columns_first)
                    std::memcpy(target + i * row, sample, std::size_t(row));
                else if (rows->item == 4)
                    transpose<4>(sample, target + i * 4, rows->width, batch);
                else
                    transpose<8>(sample, target + i * 8, rows->width, batch);
            }
        }
    });
}

#define FASTLLC_INDEX(Index)                                                                       \
    template void order_samples(const std::uint64_t*, std::int64_t, std::uint32_t, std::int64_t,   \
                                bool, Index*, std::int64_t, int);                                  \
    template void take_rows(const Samples*, std::int64_t, const Index*, std::int64_t,              \
                            std::int64_t, std::int64_t, int);
FASTLLC_INDEX(std::int32_t)
FASTLLC_INDEX(std::int64_t)

}  // namespace fastllc
