// What a launch is told, by value as the kernel's argument: nothing is copied to the device before
// it, and a CUDA graph keeps it.
#pragma once

#include <cstdint>

#include "../step.h"

namespace fastllc::cuda {

constexpr int kThreads = 256;  // of a CTA: groups of 4, each with a block of 256 elements
constexpr int kGroup = 4;
constexpr int kBlocks = kThreads / kGroup;  // of a chunk

// What is summed: the moments, and for the thermostat the squares of the momentum after the step
// and the number of elements.
enum Quantity : int { kKinetic = kMoments, kUpdated, kQuantities };
constexpr int kRowOfSums = 16;  // doubles

// A segment, and how many of its kind lie before it: tiles, each the work of a CTA, in the launch;
// chunks and spans (moments.h) in the step, of one chain.
struct Entry {
    Segment segment;
    std::int64_t tiles, chunks, spans;
    std::int32_t index;  // of the segment in the step
    std::int32_t aligned;
};

// What the thermostat needs to know of one piece, that is of one segment of one chain.
struct Heat {
    double kinetic, updated, lr;
};

// Scratch memory. Counters are zero between steps; the rest is written before it is read, except
// that the heat of empty pieces, never written, stays zero.
struct Workspace {
    std::uint32_t *all, *any;       // CTAs that are done; whether any weight is not finite
    std::uint32_t *spans, *pieces;  // [chain][span] and [chain][segment]: parts that are done
    std::int64_t* nonfinite;        // [chain][segment]
    Heat* heat;                     // [chain][segment]
    double *sums_of_chunk, *sums_of_span;  // [chain][chunk or span][kRowOfSums]
    Entry* table;                          // the entries of a launch of which there are too many
};

// Whose tables the tiles of a launch are sketched into: [chain][strip of the step][kComponents]
// [dim + kRow - 1], of which this launch has n from number `first`.
struct Strips {
    double* tables;
    std::int64_t first, n, all;
};

// strength/2 sum ||w - w0||^2 goes to result, and strength (w - w0) to `momentum` of its segments.
struct Penalty {
    double strength;
    double* result;
};

// As many as fit into 4 KiB with the rest, which every driver takes and launches fast.
constexpr int kInline = 23;

struct Arguments {
    const Entry* table;  // null: entries
    std::int64_t n_entries, tile, first_chain;
    std::int64_t n_chains, n_segments, n_chunks, n_spans;  // of the step, the last two of a chain
    std::int64_t n_ctas;                                   // of the step
    Rule rule;
    Chain* chains;
    const Setting* settings;  // [group][chain]
    double* moments;          // or null
    Sketches sketches;
    Strips strips;
    Penalty penalty;
    std::int64_t* nonfinite;
    Workspace workspace;
    Entry entries[kInline];
};
static_assert(sizeof(Entry) == 160 && sizeof(Arguments) <= 4096);

// Entries on their way to the workspace, as many as a kernel's arguments hold.
constexpr int kPlaced = 200;
struct Placing {
    Entry* table;
    std::int64_t n;
    Entry entries[kPlaced];
};
static_assert(sizeof(Placing) <= 32764);

// Standard normals for a tensor.
struct Filling {
    std::uint64_t out;
    std::int64_t numel, first;
    std::uint64_t key;
    std::uint32_t step, param;
    std::int64_t tile;
    bool aligned;
};

}  // namespace fastllc::cuda
