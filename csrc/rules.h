// What happens to one element in a step: one small struct for every update rule.
#pragma once

#include <cmath>

#include "inline.h"
#include "step.h"

namespace fastllc {

// Stochastic gradient Langevin dynamics (Welling & Teh 2011) with the localization of
// Lau et al. (arXiv 2308.12108). The coefficients are those of step.h with lr multiplied in.
template <class T>
struct Sgld {
    T grad, localization, weight_decay, noise;

    FASTLLC_INLINE explicit Sgld(const Setting& s)
        : grad(T(0.5 * s.lr * s.nbeta)), localization(T(0.5 * s.lr * s.localization)),
          weight_decay(T(0.5 * s.lr * s.weight_decay)), noise(T(std::sqrt(s.lr) * s.noise_level)) {}

    // Without kDecaying the weight decay is known to be zero.
    template <bool kDecaying, class V>
    FASTLLC_INLINE V next(V w, V g, V d, V z) const {
        V drift = grad * g;
        if (localization != 0) drift += localization * d;  // d may be infinite where nothing pulls
        if constexpr (kDecaying) drift += weight_decay * w;
        return (w - drift) + noise * z;
    }
};

}  // namespace fastllc
