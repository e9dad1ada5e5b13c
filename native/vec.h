// Vectors of W floats or 32-bit words in the compiler's own vector extension, so that one source serves every
// instruction set; intrinsics only where the extension has no word for it.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace regard {

#if defined(__AVX512F__)
constexpr int W = 16, ROWS = 12, ROW_STEP = 4;  // 12 x 2 accumulators, 2 vectors of B and a broadcast: of 32 registers
constexpr int KEYS = 96;
#elif defined(__AVX2__)
constexpr int W = 8, ROWS = 6, ROW_STEP = 2;  // 6 x 2 accumulators of 16 registers
constexpr int KEYS = 192;
#else
constexpr int W = 4, ROWS = 4, ROW_STEP = 2;
constexpr int KEYS = 96;
#endif
constexpr int PANEL = 2 * W;  // keys side by side in a packed panel
constexpr int BLOCK = 96;     // queries and keys of a block of backward: a multiple of ROWS, PANEL and 32
// KEYS: keys of a block of forward. The scores of STRIPS strips and a panel of values fit the L1 cache.
static_assert(BLOCK % ROWS == 0 && BLOCK % PANEL == 0 && BLOCK % 32 == 0 && KEYS % PANEL == 0 && KEYS % 32 == 0);

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));

constexpr float INF = std::numeric_limits<float>::infinity();

template <class V, class T>
inline V load_as(const T* p) {
    V x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
template <class V, class T>
inline void store_as(T* p, V x) {
    std::memcpy(p, &x, sizeof x);
}
inline vf load(const float* p) { return load_as<vf>(p); }
inline vu load(const uint32_t* p) { return load_as<vu>(p); }
inline void store(float* p, vf x) { store_as(p, x); }
inline void store(uint32_t* p, vu x) { store_as(p, x); }

inline vf splat(float x) { return x - vf{}; }  // x + 0 would turn -0 into 0 and cost an addition
inline vi splat(int32_t x) { return x - vi{}; }
inline vu splat(uint32_t x) { return x - vu{}; }

inline vi lanes() {
    vi x;
    for (int n = 0; n < W; ++n) x[n] = n;
    return x;
}

// The second argument wins where one of them is NaN.
inline vf max(vf a, vf b) { return a > b ? a : b; }

// The words of two vectors, counted on from one to the other, that Order::at names for each lane.
template <class Order, int... N>
inline vu shuffled(vu a, vu b, std::integer_sequence<int, N...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, Order::at(N)...);
#else
    return __builtin_shuffle(a, b, vu{uint32_t(Order::at(N))...});
#endif
}
template <class Order>
inline vu shuffled(vu a, vu b) {
    return shuffled<Order>(a, b, std::make_integer_sequence<int, W>{});
}

// All lanes to one, by halves.
template <int HALF>
struct Swapped {
    static constexpr int at(int n) { return n ^ HALF; }
};
template <int HALF = W / 2, class Two>
inline float fold(vf x, Two two) {
    if constexpr (HALF == 0) {
        return x[0];
    } else {
        return fold<HALF / 2>(two(x, (vf)shuffled<Swapped<HALF>>((vu)x, (vu)x)), two);
    }
}
inline float sum_across(vf x) {
    return fold(x, [](vf a, vf b) { return a + b; });
}
inline float max_across(vf x) {
    return fold(x, [](vf a, vf b) { return max(a, b); });
}

// e^x within 2 ulp for -87 <= x <= 88, 0 below: no weight is subnormal, for one would cost a hundred cycles. NaN stays
// NaN. Cody-Waite reduction, then the polynomial of Cephes' expf.
[[gnu::always_inline]] inline vf exp(vf x) {
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits, and n in the lowest bits
    const vf shifted = x * 1.44269504f + round, n = shifted - round;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return x < -87.0f ? vf{} : (vf)((vu)p + ((vu)shifted << 23));
}

constexpr double LOG2_OF_E = 1.4426950408889634;
constexpr float LOG2E = float(LOG2_OF_E);

// 2^x within 2 ulp for -125 <= x <= 127, 0 below: no weight is subnormal. NaN stays NaN. A minimax polynomial on
// [-1/2, 1/2], where the fraction is exact; its terms by pairs (Estrin 1960), for one chain would wait for itself.
[[gnu::always_inline]] inline vf exp2(vf x) {
    const float round = 12582912.0f;
    const vf shifted = x + round, r = x - (shifted - round), r2 = r * r;
    const vf low = (r * 5.550332471e-2f + 2.402264791e-1f) * r2 + (r * 6.931472028e-1f + 1.0f);
    const vf high = r2 * 1.535336188e-4f + (r * 1.339887440e-3f + 9.618437357e-3f);
    const vf p = high * (r2 * r2) + low;
    return (vf)((vi)((vu)p + ((vu)shifted << 23)) & ~(x < -125.0f));
}

// tanh(x): a polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel.
inline vf tanh(vf x) {
    const vf size = x < 0.0f ? -x : x;
    const vf capped = size > 20.0f ? splat(20.0f) : size;
    const vf far = 1.0f - 2.0f / (exp(capped + capped) + 1.0f);
    const vf z = x * x;
    vf p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const vf near = p * z * x + x;
    return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

// The finaliser of the dropout hash; `_dropout.py` is its definition.
template <class U>
inline U mix32(U x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}
constexpr uint32_t GOLDEN = 0x9E3779B9u;

template <bool UPPER>
struct Zipped {
    static constexpr int at(int n) { return n / 2 + (UPPER ? W / 2 : 0) + (n % 2 ? W : 0); }
};
inline vu zip_low(vu a, vu b) { return shuffled<Zipped<false>>(a, b); }
inline vu zip_high(vu a, vu b) { return shuffled<Zipped<true>>(a, b); }

// Of two vectors, the words of each group of four that `pick` names: 0 ... 3 are the first's, 4 ... 7 the second's.
template <int P0, int P1, int P2, int P3>
struct OfFours {
    static constexpr int at(int n) {
        const int pick = n % 4 == 0 ? P0 : n % 4 == 1 ? P1 : n % 4 == 2 ? P2 : P3;
        return n / 4 * 4 + pick % 4 + pick / 4 * W;
    }
};
template <int P0, int P1, int P2, int P3>
inline vu of_fours(vu a, vu b) {
    return shuffled<OfFours<P0, P1, P2, P3>>(a, b);
}

// Groups of four words of two vectors in turn, from the lower or the upper half.
template <bool UPPER>
struct FoursZipped {
    static constexpr int at(int n) { return n / 8 * 4 + n % 4 + (UPPER ? W / 2 : 0) + (n / 4 % 2 ? W : 0); }
};
template <bool UPPER>
inline vu zip_fours(vu a, vu b) {
    return shuffled<FoursZipped<UPPER>>(a, b);
}

// Vectors whose fours hold, each of them, a part of the same four results: one vector of the results of all.
template <int COUNT, class Two>
[[gnu::always_inline]] inline vf fold_fours(vf* x, Two two) {
    if constexpr (COUNT == 1) {
        return x[0];
    } else {
#pragma GCC unroll 4
        for (int n = 0; n < COUNT / 2; ++n)
            x[n] = two((vf)zip_fours<false>((vu)x[n], (vu)x[n + COUNT / 2]), (vf)zip_fours<true>((vu)x[n], (vu)x[n + COUNT / 2]));
        return fold_fours<COUNT / 2>(x, two);
    }
}

// What `two` makes of two vectors, each within its own pairs of lanes: a b a b in every four.
template <class Two>
[[gnu::always_inline]] inline vf fold_two(vf first, vf second, Two two) {
    const vu a = (vu)first, b = (vu)second;
    return two((vf)of_fours<0, 4, 1, 5>(a, b), (vf)of_fours<2, 6, 3, 7>(a, b));
}

// What `two` makes of the lanes of each of W vectors, in their order, of which fold_two has made halves.
template <class Two>
[[gnu::always_inline]] inline vf fold_halves(const vf (&half)[W / 2], Two two) {
    vf quarter[W / 4];
#pragma GCC unroll 4
    for (int n = 0; n < W / 4; ++n) {
        const vu a = (vu)half[2 * n], b = (vu)half[2 * n + 1];
        quarter[n] = two((vf)of_fours<0, 1, 4, 5>(a, b), (vf)of_fours<2, 3, 6, 7>(a, b));  // the four sums of a four
    }
    return fold_fours<W / 4>(quarter, two);
}

template <class Two>
[[gnu::always_inline]] inline vf fold_each(vf (&x)[W], Two two) {
    vf half[W / 2];
#pragma GCC unroll 8
    for (int n = 0; n < W / 2; ++n) half[n] = fold_two(x[2 * n], x[2 * n + 1], two);
    return fold_halves(half, two);
}

// W x W words transposed in place: within 4 x 4 words first, which costs one instruction a vector and step; then the
// groups of four trade places by perfect shuffles.
[[gnu::always_inline]] inline void transpose(vu (&x)[W]) {
#pragma GCC unroll 4
    for (int n = 0; n < W; n += 4) {
        const vu a = of_fours<0, 4, 1, 5>(x[n], x[n + 1]), b = of_fours<2, 6, 3, 7>(x[n], x[n + 1]);
        const vu c = of_fours<0, 4, 1, 5>(x[n + 2], x[n + 3]), d = of_fours<2, 6, 3, 7>(x[n + 2], x[n + 3]);
        x[n] = of_fours<0, 1, 4, 5>(a, c), x[n + 1] = of_fours<2, 3, 6, 7>(a, c);
        x[n + 2] = of_fours<0, 1, 4, 5>(b, d), x[n + 3] = of_fours<2, 3, 6, 7>(b, d);
    }
    if constexpr (W > 4) {
        constexpr int GROUPS = W / 4;
        // x[4 * m + k] has, in its group g, column 4 * g + k of the rows 4 * m ...; it belongs to x[4 * g + k], group m.
        for (int stage = 1; stage < GROUPS; stage *= 2) {
            vu y[W];
#pragma GCC unroll 4
            for (int m = 0; m < GROUPS / 2; ++m)
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) {
                    y[8 * m + k] = zip_fours<false>(x[4 * m + k], x[4 * (m + GROUPS / 2) + k]);
                    y[8 * m + 4 + k] = zip_fours<true>(x[4 * m + k], x[4 * (m + GROUPS / 2) + k]);
                }
            std::memcpy(x, y, sizeof x);
        }
    }
}

}  // namespace regard
