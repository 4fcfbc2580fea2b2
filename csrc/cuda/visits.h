// Which blocks of a chunk are summed, in which order, and which units make them (../moments.h): the
// blocks as they lie, or under a mask what it leaves of them, a little of several making one. This
// is the order in which the CPU visits them one after another (../cpu/blocks.inl), worked out side
// by side.
#pragma once

#include "formats.h"

namespace fastllc::cuda {

// The units that one group of threads visits: count from number start of the chunk, or, listed, of
// the list.
struct Visit {
    std::int16_t start, count;
    bool listed;
};

template <class L>
struct Visits {
    static constexpr int kUnit = L::kPerCounter;
    static constexpr int kUnits = int(kBlock) / kUnit;  // of a block
    static constexpr int kOwn = kUnits / kGroup;        // of a thread
    using Bits = std::uint32_t;
    static_assert(kOwn <= 32);

    Visit of[kBlocks + 1];
    // Those of blocks of which little is left, in order: an eighth at most of full ones, and of the
    // two where the tensor begins or ends perhaps all.
    std::int16_t units[kBlocks * kUnits / 8 + 2 * kUnits];
    Bits on[kThreads];                             // bit i: anything is on in the thread's unit i
    std::int16_t found[kBlocks], before[kBlocks];  // units on in a block; listed before it
    bool direct[kBlocks];

    // Without a mask.
    FASTLLC_INLINE void all(int thread) {
        if (thread < kBlocks)
            of[thread] = {std::int16_t(thread * kUnits), std::int16_t(kUnits), false};
    }

    // With one, given by the address of element 0 of the chunk. Unless `across`, nothing is made of
    // several blocks.
    FASTLLC_INLINE void choose(std::uint64_t mask, const Extent& extent, bool across) {
        each_thread([&](int thread) { look(mask, extent, thread); });
        each_thread([&](int thread) {
            if (thread < kBlocks) judge(extent, thread);
        });
        each_thread([&](int thread) {
            if (thread < kBlocks) place(across, thread);
        });
        each_thread([&](int thread) { list(thread); });
    }

private:
    static FASTLLC_INLINE int unit(int thread, int i) {
        return thread / kGroup * kUnits + i * kGroup + thread % kGroup;
    }

    FASTLLC_INLINE void look(std::uint64_t mask, const Extent& extent, int thread) {
        Bits bits = 0;
        for (int i = 0; i < kOwn; ++i) {
            const int at = unit(thread, i) * kUnit;
            bits |= Bits(load_mask<kUnit>(mask, at, extent) != 0) << i;
        }
        on[thread] = bits;
        if (thread <= kBlocks) of[thread] = {0, 0, false};
    }

    FASTLLC_INLINE void judge(const Extent& extent, int block) {
        int n = 0;
        for (int i = 0; i < kGroup; ++i)
            for (Bits bits = on[block * kGroup + i]; bits != 0; bits &= bits - 1) ++n;
        found[block] = std::int16_t(n);
        const bool full = extent.begin <= block * kBlock && (block + 1) * kBlock <= extent.end;
        direct[block] = full && 8 * n * kUnit > kBlock;
    }

    // A list of kUnits is visited as soon as there is one unit more.
    static FASTLLC_INLINE int visited(int listed) {
        return listed == 0 ? 0 : (listed - 1) / kUnits;
    }

    FASTLLC_INLINE void place(bool across, int block) {
        int listed = 0, whole = 0, parts = 0;  // units, direct blocks and others before this one
        for (int i = 0; i < block; ++i) {
            whole += direct[i];
            listed += direct[i] ? 0 : found[i];
            parts += !direct[i] && found[i] > 0;
        }
        before[block] = std::int16_t(listed);
        const int until = listed + (direct[block] ? 0 : found[block]);
        const int done = visited(listed);
        const auto gathered = [&](int list) {
            return Visit{std::int16_t(list * kUnits),
                         std::int16_t(until < (list + 1) * kUnits ? until - list * kUnits : kUnits),
                         true};
        };
        if (direct[block]) {
            of[whole + (across ? done : parts)] = {std::int16_t(block * kUnits),
                                                   std::int16_t(kUnits), false};
            ++whole;
        } else if (!across) {
            if (found[block] > 0) of[whole + parts] = {before[block], found[block], true};
        } else if (visited(until) > done) {
            of[whole + done] = gathered(done);
        }
        if (across && block == kBlocks - 1 && until > 0)
            of[whole + visited(until)] = gathered(visited(until));
    }

    FASTLLC_INLINE void list(int thread) {
        const int block = thread / kGroup;
        if (direct[block]) return;
        int at = before[block];
        for (int i = 0; i < kOwn; ++i)
            for (int other = 0; other < kGroup; ++other) {
                if ((on[block * kGroup + other] >> i & 1) == 0) continue;
                if (other == thread % kGroup) units[at] = std::int16_t(unit(thread, i));
                ++at;
            }
    }
};

}  // namespace fastllc::cuda
