// A step from a table of segments, launch by launch. The same text for a device and its emulation,
// which bring their own kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "pack.h"

namespace fastllc::cuda {

// Memory of the device; see step.h.
struct Buffers {
    Chain* chains;
    const Setting* settings;
    std::int64_t* nonfinite;
    double* moments;  // or null
    Sketches sketches;
    std::uint64_t workspace;
};

class Stepper {
public:
    // Reads the table again at each call: addresses may change, and sizes.
    Stepper(Rule rule, const Segment* segments, std::int64_t n_segments, std::int64_t n_chains,
            std::int64_t n_groups);

    std::int64_t workspace(bool moments, std::int64_t sketch_dim);
    std::int64_t launches(bool moments, std::int64_t sketch_dim);
    void run(const Buffers& buffers, void* stream);

private:
    bool sums(bool moments, std::int64_t sketch_dim) const {
        return moments || sketch_dim > 0 || rule_ == Rule::sgnht;
    }
    const Pack& packed(bool sums);

    Rule rule_;
    const Segment* segments_;
    std::int64_t n_segments_, n_chains_, n_groups_;
    std::vector<Segment> seen_;  // what was checked and packed
    Pack packs_[2];              // without and with sums
};

}  // namespace fastllc::cuda
