// From tables of segments to launches. Pure host code: nothing here knows a device.
#pragma once

#include <cstdint>
#include <vector>

#include "arguments.h"
#include "kernels.h"

namespace fastllc::cuda {

// Segments of one dtype, cut into tiles at the multiples of `tile` elements of their whole tensors,
// for the chains [first_chain, first_chain + grid.chains).
struct Launch {
    DType dtype;
    std::vector<Entry> entries;
    std::int64_t tile;
    std::int64_t first_chain;
    Grid grid;
};

struct Pack {
    std::vector<Launch> launches;
    std::int64_t n_chains, n_segments;
    std::int64_t n_chunks, n_spans;  // of one chain
    std::int64_t n_ctas;
};

// An array of a segment: its address or 0, bytes of an element, elements from chain to chain.
struct Array {
    const char* name;
    std::uint64_t base;
    std::int64_t size, stride;
    bool needed;
};
std::vector<Array> arrays(Rule rule, const Segment& segment);

// Throws std::invalid_argument where native code could not do what the table says.
void check(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
           std::int64_t n_groups);

// With sums tiles are chunks. Empty segments take no tile, but a step of nothing takes one, since
// it counts as a step.
Pack pack(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
          bool sums);

// The strips of each launch: at most 256 for a chain, of tables of 16 MiB in all, but for 4.
std::vector<Strips> strips(const Pack& pack, std::int64_t dim);

// Where in scratch memory everything lies, and how much of it there is. What must begin as zero
// comes first, in the same places for all steps with these segments.
struct Layout {
    std::int64_t nonfinite, heat, pieces, spans, table, sums_of_chunk, sums_of_span, strips, bytes;
};
Layout layout(const Pack& pack, bool sums, std::int64_t sketch_dim);
Workspace place(const Layout& layout, std::uint64_t base);

}  // namespace fastllc::cuda
