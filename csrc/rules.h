// What happens to one element in a step: one small struct for every family of update rules.
//
// A rule is made from the settings of its (group, chain) and the age of its tensor, the number of
// steps that it has taken part in. `next` returns the following weight from w, the gradient g,
// d = w - w0 and the standard normal z, moves the state (momentum m, square_avg v), and says in
// `parts` what the step was made of, for the sums of moments.h.
#pragma once

#include <cmath>

#include "inline.h"
#include "step.h"

namespace fastllc {

// The components of a step before their coefficients: (preconditioned) gradient, pull, weight and
// noise.
template <class V>
struct Parts {
    V a, p, c, n;
};

// scale (nbeta g + localization d + weight_decay w). What has no coefficient stays out: d may be
// infinite where nothing pulls.
template <class T>
struct Drift {
    T grad, localization, weight_decay;
    bool pulling, decaying;

    Drift() = default;
    FASTLLC_INLINE Drift(const Setting& s, double scale)
        : grad(T(scale * s.nbeta)), localization(T(scale * s.localization)),
          weight_decay(T(scale * s.weight_decay)), pulling(localization != 0),
          decaying(weight_decay != 0) {}

    template <class V>
    FASTLLC_INLINE V operator()(V g, V d, V w) const {
        V drift = grad * g;
        if (pulling) drift += localization * d;
        if (decaying) drift += weight_decay * w;
        return drift;
    }
};

// Stochastic gradient Langevin dynamics (Welling & Teh 2011) with the localization of Lau et al.
// (arXiv 2308.12108).
template <class T>
struct Langevin {
    static constexpr bool kHasMomentum = false, kHasSquareAvg = false, kThermostat = false;
    Drift<T> drift;
    T noise;

    Langevin() = default;  // for memory where nothing is constructed
    FASTLLC_INLINE Langevin(Rule, const Setting& s, const Walker&)
        : drift(s, 0.5 * s.lr), noise(T(std::sqrt(s.lr) * s.noise_level)) {}

    template <class L, class V>
    FASTLLC_INLINE V next(V w, V g, V d, V z, V&, V&, Parts<V>& parts) const {
        parts = {g, d, w, z};
        return (w - drift(g, d, w)) + noise * z;
    }
};

// 1 / (1 - decay^n), by multiplications alone, so that every machine gets the same; 1 for n = 0,
// when nothing has been averaged yet.
FASTLLC_INLINE double bias_correction(double decay, std::int64_t n) {
    if (n == 0) return 1;
    double power = 1;
    for (double square = decay; n > 0; n >>= 1, square *= square)
        if (n & 1) power *= square;
    return 1 / (1 - power);
}

// Langevin dynamics preconditioned by the running mean square v of the loss gradient (Li et al.
// 2016), G = 1 / (sqrt(v) + eps), with the gradient itself or its running mean as drift.
template <class T, bool kAdam>
struct Preconditioned {
    static constexpr bool kHasMomentum = kAdam, kHasSquareAvg = true, kThermostat = false;
    static constexpr T spread = 0;
    Drift<T> drift;
    T noise, alpha, rest, correction, eps, beta, beta_rest, beta_correction;
    bool adapting;

    Preconditioned() = default;
    FASTLLC_INLINE Preconditioned(Rule, const Setting& s, const Walker& walker)
        : drift(s, 0.5 * s.lr), noise(T(std::sqrt(s.lr) * s.noise_level)), alpha(T(s.alpha)),
          rest(T(1 - s.alpha)), eps(T(s.eps)), beta(T(s.beta)), beta_rest(T(1 - s.beta)),
          adapting(double(walker.age) < s.adapt_steps) {
        const auto updates = adapting ? walker.age + 1 : std::int64_t(s.adapt_steps);
        correction = s.corrected != 0 ? T(bias_correction(s.alpha, updates)) : T(1);
        beta_correction = T(bias_correction(s.beta, walker.age + 1));
    }

    template <class L, class V>
    FASTLLC_INLINE V next(V w, V g, V d, V z, V& m, V& v, Parts<V>& parts) const {
        if (adapting) v = alpha * v + rest * (g * g);
        const V precondition = T(1) / (L::sqrt(correction * v) + eps);
        const V root = L::sqrt(precondition);
        V toward = g;
        if constexpr (kAdam) {
            m = beta * m + beta_rest * g;
            toward = beta_correction * m;
        }
        parts = {precondition * toward, precondition * d, precondition * w, root * z};
        return (w - precondition * drift(toward, d, w)) + noise * (root * z);
    }
};

// Langevin dynamics with momentum, in units of displacement: m <- decay m - drift + noise z, then
// w <- w + m. Hamiltonian Monte Carlo with friction (Chen, Fox & Guestrin 2014) where the decay is
// fixed, a Nose-Hoover thermostat (Ding et al. 2014) where it follows the kinetic energy. BAOAB
// (Leimkuhler & Matthews 2013) moves by half before and half after the momentum is refreshed.
template <class T>
struct Momentum {
    static constexpr bool kHasMomentum = true, kHasSquareAvg = false, kThermostat = true;
    Drift<T> drift;
    T noise, decay, spread;  // the last: of a momentum at equilibrium, which is drawn at the start
    bool splitting;

    Momentum() = default;
    FASTLLC_INLINE Momentum(Rule rule, const Setting& s, const Walker& walker)
        : drift(s, rule == Rule::sghmc ? 0.5 * s.lr : s.lr), noise(T(0)), decay(T(1 - s.friction)),
          spread(T(std::sqrt(rule == Rule::sghmc ? 0.5 * s.lr : s.lr) * s.noise_level)),
          splitting(rule == Rule::baoab) {
        double variance = s.friction * s.lr;
        if (rule == Rule::sgnht) variance *= 2, decay = T(1 - walker.thermostat);
        if (rule == Rule::baoab) variance *= 2 - s.friction;  // 1 - decay^2
        noise = T(std::sqrt(variance) * s.noise_level);
    }

    template <class L, class V>
    FASTLLC_INLINE V next(V w, V g, V d, V z, V& m, V&, Parts<V>& parts) const {
        parts = {g, d, w, z};
        if (!splitting) {
            m = (decay * m - drift(g, d, w)) + noise * z;
            return w + m;
        }
        const V kicked = m - drift(g, d, w);
        m = decay * kicked + noise * z;
        return (w + T(0.5) * kicked) + T(0.5) * m;
    }
};

// The weight that a rule makes of one in a box of that size around w0: at a wall it stays, and a
// momentum turns round. NaN passes.
template <class L, class R, class V, class T>
FASTLLC_INLINE V next_inside(const R& rule, bool walled, T box, V w, V g, V w0, V d, V z, V& m,
                             V& v, Parts<V>& parts) {
    V next = rule.template next<L>(w, g, d, z, m, v, parts);
    if (walled) {
        const V low = w0 - box, high = w0 + box;
        if constexpr (R::kHasMomentum && !R::kHasSquareAvg)
            m = (next < low) | (next > high) ? -m : m;
        next = next < low ? low : next;
        next = next > high ? high : next;
    }
    return next;
}

// Calls add(moment, x, y) for the products of one element that are summed (moments.h). Those of g
// and d are told apart from those of a and p only where a rule does.
template <class R, class V, class Add>
FASTLLC_INLINE void add_products(const Parts<V>& part, V w, V g, V d, Add add) {
    add(aa, part.a, part.a);
    add(pp, part.p, part.p);
    add(nn, part.n, part.n);
    add(ap, part.a, part.p);
    add(an, part.a, part.n);
    add(pn, part.p, part.n);
    add(ww, w, w);
    if constexpr (R::kHasSquareAvg) {
        add(gg, g, g);
        add(dd, d, d);
        add(gd, g, d);
    }
}

// And for those that only decaying weights ask for.
template <class R, class V, class Add>
FASTLLC_INLINE void add_products_of_decay(const Parts<V>& part, Add add) {
    add(ac, part.a, part.c);
    add(cn, part.c, part.n);
    if constexpr (R::kHasSquareAvg) add(cc, part.c, part.c);
}

// Where nothing preconditions, these moments are those of others.
template <class R>
FASTLLC_INLINE int same_moment(int m) {
    if (R::kHasSquareAvg) return m;
    return m == gg ? aa : m == dd ? pp : m == gd ? ap : m == cc ? ww : m;
}

}  // namespace fastllc
