#include "run.h"

#include <algorithm>
#include <cstring>

namespace fastllc::cuda {
namespace {

std::int64_t placings(const Launch& launch) {
    const auto n = static_cast<std::int64_t>(launch.entries.size());
    return n <= kInline ? 0 : (n + kPlaced - 1) / kPlaced;
}

// Entries go with the kernel's arguments or, of many, ahead of it into the workspace.
const Entry* put(const Launch& launch, Arguments& a, Entry* table, void* stream) {
    const auto n = static_cast<std::int64_t>(launch.entries.size());
    a.n_entries = n;
    if (placings(launch) == 0) {
        std::copy(launch.entries.begin(), launch.entries.end(), a.entries);
        return nullptr;
    }
    for (std::int64_t from = 0; from < n; from += kPlaced) {
        Placing placing{table + from, std::min<std::int64_t>(kPlaced, n - from), {}};
        std::copy_n(launch.entries.begin() + from, placing.n, placing.entries);
        place_entries(placing, stream);
    }
    return table;
}

}  // namespace

Stepper::Stepper(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
                 std::int64_t n_groups)
    : rule_(rule), segments_(segments), n_segments_(n_segments), n_chains_(n_chains),
      n_groups_(n_groups), packs_{} {
    packed(false);
}

const Pack& Stepper::packed(bool sums) {
    const auto n = static_cast<std::size_t>(n_segments_);
    if (seen_.size() != n || std::memcmp(seen_.data(), segments_, n * sizeof(Segment)) != 0) {
        check(rule_, segments_, n_segments_, n_chains_, n_groups_);
        seen_.assign(segments_, segments_ + n);
        packs_[0].launches.clear();
        packs_[1].launches.clear();
    }
    Pack& found = packs_[sums];
    if (found.launches.empty()) found = pack(rule_, segments_, n_segments_, n_chains_, sums);
    return found;
}

std::int64_t Stepper::workspace(bool moments, std::int64_t sketch_dim) {
    const bool summed = sums(moments, sketch_dim);
    return layout(packed(summed), summed).bytes;
}

std::int64_t Stepper::launches(bool moments, std::int64_t sketch_dim) {
    std::int64_t n = 0;
    for (const Launch& launch : packed(sums(moments, sketch_dim)).launches)
        n += 1 + placings(launch);
    return n;
}

void Stepper::run(const Buffers& b, void* stream) {
    const bool summed = sums(b.moments != nullptr, b.sketches.tables ? b.sketches.dim : 0);
    const Pack& all = packed(summed);
    Arguments a{};
    a.n_chains = all.n_chains;
    a.n_segments = all.n_segments;
    a.n_chunks = all.n_chunks;
    a.n_spans = all.n_spans;
    a.n_ctas = all.n_ctas;
    a.rule = rule_;
    a.chains = b.chains;
    a.settings = b.settings;
    a.moments = b.moments;
    a.sketches = b.sketches;
    a.nonfinite = b.nonfinite;
    a.workspace = place(layout(all, summed), b.workspace);
    Entry* table = a.workspace.table;
    for (const Launch& launch : all.launches) {
        a.table = put(launch, a, table, stream);
        a.tile = launch.tile;
        a.first_chain = launch.first_chain;
        kernels(launch.dtype).step(a, launch.grid, summed, stream);
        table += launch.entries.size();
    }
}

}  // namespace fastllc::cuda
