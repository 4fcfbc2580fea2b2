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
    // Throws before any launch where something is not in the device's memory.
    void run(const Buffers& buffers, int device, void* stream);

private:
    void expect_on(int device, const Buffers& buffers);
    bool sums(bool moments, std::int64_t sketch_dim) const {
        return moments || sketch_dim > 0 || rule_ == Rule::sgnht;
    }
    const Pack& packed(bool sums);

    Rule rule_;
    const Segment* segments_;
    std::int64_t n_segments_, n_chains_, n_groups_;
    std::vector<Segment> seen_;          // what was checked and packed
    Pack packs_[2];                      // without and with sums
    std::vector<std::uint64_t> places_;  // addresses that were found on the device
};

// Of the proposal stream, as the CPU's of that name; float32 or float64.
void standard_normal(DType dtype, std::uint64_t out, std::int64_t numel, std::int64_t first,
                     std::uint64_t key, std::uint32_t step, std::uint32_t param, int device,
                     void* stream);

// As the CPU's of that name; the sum goes to the device's memory.
std::int64_t localization_workspace(DType dtype, const Pair* pairs, std::int64_t n);
void localization_penalty(DType dtype, const Pair* pairs, std::int64_t n, double strength,
                          double* result, std::uint64_t workspace, int device, void* stream);

}  // namespace fastllc::cuda
