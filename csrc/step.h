// The whole native interface: plain structs and functions, no torch, no Python. Sizes and indices
// are in elements and 64-bit. Every pointer has been checked by the caller
// (python/fastllc/kernels.py). Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "moments.h"
#include "sketch.h"

namespace fastllc {

// Arithmetic is in double precision for float64 and in single precision for the others.
enum class DType : std::int64_t { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

enum class Rule : std::int64_t { sgld = 0, rmsprop = 1, adam = 2, sghmc = 3, sgnht = 4, baoab = 5 };

// A step advances K chains over S parameter tensors ("segments"). Segment s of chain k lives at
// base + k * stride, its anchor at w0 + anchor * w0_stride; masks are usually shared (stride 0).

// One parameter tensor, contiguous in row-major order. Addresses are integers since they come
// from a table that Python fills; a null w0 means "no anchor", a null mask "every element".
struct Segment {
    std::uint64_t w;     // read and written
    std::uint64_t grad;  // read
    std::uint64_t w0;    // read; or 0
    std::uint64_t mask;  // one byte an element, 0 keeps the weight as it is; or 0
    // Read and written, in the precision of the arithmetic; 0 where the rule has none.
    std::uint64_t momentum, square_avg;
    // What the type of w cannot hold: for bfloat16 the 16 bits (signed) that together with those of
    // w make a float, for float16 the float itself. Without it low precisions round at random.
    std::uint64_t residual;
    std::int64_t numel;
    std::int64_t first;  // index of element 0 in the whole, unsharded tensor
    std::int64_t param;  // parameter id, 24 bits
    std::int64_t group;  // row of the settings table
    std::int64_t born;   // the step it first takes part in: its state is set up then
    DType dtype;
    // From chain to chain, from anchor to anchor, and from chain to chain; all else as w.
    std::int64_t w_stride, w0_stride, mask_stride;
};

// One for every (group, chain). Beside what all rules know:
struct Setting {
    double lr, nbeta, localization, weight_decay, noise_level, bounding_box;
    double alpha, eps;   // rmsprop, adam: decay of the mean square, and what is added to its root
    double start;        // the mean square before the first step
    double corrected;    // 1: averages are divided by 1 - decay^updates
    double adapt_steps;  // the mean square is frozen after so many updates; infinity: never
    double beta;         // adam: decay of the mean gradient
    double friction;     // sghmc, baoab: share of the momentum that is lost; sgnht: diffusion
};

struct Chain {
    std::uint64_t key;
    std::int64_t step;
    std::int64_t active;  // 0: frozen, nothing of it is read or written
    double thermostat;    // sgnht: read and written
    std::int64_t anchor;  // which of the anchors is its own
};

// What a rule needs to know beside its settings.
struct Walker {
    std::int64_t age;
    double thermostat;
};

// Count sketches of what a step is made of (sketch.h), over all segments of a chain.
struct Sketches {
    double* tables;    // [chain][kComponents][dim]; or null: not wanted
    std::int64_t dim;  // in [1, kMaxSketch]
    std::uint64_t seed;
};

struct Step {
    Rule rule;
    const Segment* segments;
    std::int64_t n_segments;
    Chain* chains;
    std::int64_t n_chains;
    const Setting* settings;  // [group][chain]
    double* moments;          // [chain][segment][kMoments]; or null: not wanted
    Sketches sketches;
    std::int64_t* nonfinite;  // [chain][segment] number of weights that are NaN or infinite now
    int threads;
};

// Returns the number of non-finite weights in all active chains.
std::int64_t step(const Step& step);

// out[i] = the normal of element first + i at this address of the proposal stream.
void standard_normal(DType dtype, void* out, std::int64_t numel, std::int64_t first,
                     std::uint64_t key, std::uint32_t step, std::uint32_t param, int threads);

// One tensor of a localization penalty; a null out means that its gradient is not wanted.
struct Pair {
    std::uint64_t w, w0, out;
    std::int64_t numel;
};

// Returns strength/2 sum ||w - w0||^2 and writes out = strength (w - w0).
double localization_penalty(DType dtype, const Pair* pairs, std::int64_t n, double strength,
                            int threads);

}  // namespace fastllc
