// Vectors of W floats or 32-bit words in the compiler's own vector extension, so that one source serves every
// instruction set; intrinsics only where the extension has no word for it.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace regard {

#if defined(__AVX512F__)
constexpr int W = 16, ROWS = 12, ROW_STEP = 4;  // 12 x 2 accumulators, 2 vectors of B and a broadcast: of 32 registers
#elif defined(__AVX2__)
constexpr int W = 8, ROWS = 6, ROW_STEP = 2;  // 6 x 2 accumulators of 16 registers
#else
constexpr int W = 4, ROWS = 4, ROW_STEP = 2;
#endif
constexpr int PANEL = 2 * W;  // keys side by side in a packed panel
constexpr int BLOCK = 96;     // queries and keys of a block: a multiple of ROWS, PANEL and 32
static_assert(BLOCK % ROWS == 0 && BLOCK % PANEL == 0 && BLOCK % 32 == 0);

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

inline float sum_across(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float total = 0;
    for (int n = 0; n < W; ++n) total += x[n];
    return total;
#endif
}

inline float max_across(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float top = x[0];
    for (int n = 1; n < W; ++n) top = top > x[n] ? top : x[n];
    return top;
#endif
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

inline vu zip_low(vu a, vu b) {
    vu order;
    for (int n = 0; n < W; ++n) order[n] = n / 2 + (n % 2 ? W : 0);
    return __builtin_shuffle(a, b, order);
}
inline vu zip_high(vu a, vu b) {
    vu order;
    for (int n = 0; n < W; ++n) order[n] = n / 2 + W / 2 + (n % 2 ? W : 0);
    return __builtin_shuffle(a, b, order);
}

// W x W words transposed in place: log2(W) perfect shuffles.
inline void transpose(vu (&x)[W]) {
    for (int stage = 1; stage < W; stage *= 2) {
        vu y[W];
#pragma GCC unroll 16
        for (int n = 0; n < W / 2; ++n) {
            y[2 * n] = zip_low(x[n], x[n + W / 2]);
            y[2 * n + 1] = zip_high(x[n], x[n + W / 2]);
        }
        std::memcpy(x, y, sizeof x);
    }
}

}  // namespace regard
