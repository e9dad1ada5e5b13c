// The register tile that every product of attention goes through: M rows by N vectors of C += A B.
//
// The depth is counted in units of 32 bits: a float, or a pair of bfloat16 that one instruction multiplies and adds.
#pragma once
#include "vec.h"

namespace regard {

constexpr int STRIPS = 4;  // strips of rows that take turns at a panel while it is in the L1 cache

struct Pair {  // two bfloat16, the lower depth in the lower half
    uint32_t bits;
};

inline vf multiply_add(float a, const float* b, vf c) { return splat(a) * load(b) + c; }
inline vf multiply_add(vf a, vf b, vf c) { return a * b + c; }
inline vf broadcast(const float* a) { return splat(*a); }
inline vf load_unit(const float* b) { return load(b); }

#if defined(__AVX512BF16__)
inline vu broadcast(const Pair* a) { return splat(a->bits); }
inline vu load_unit(const Pair* b) { return load(&b->bits); }
inline vf multiply_add(vu a, vu b, vf c) { return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b); }
#endif

struct Product {  // C = A B
    vf operator()(vf product, const float*, int) const { return product; }
};
struct Scaled {  // C = factor * A B
    float factor;
    vf operator()(vf product, const float*, int) const { return product * factor; }
};
struct Added {  // C += A B
    vf operator()(vf product, const float* c, int) const { return load(c) + product; }
};
struct Rescaled {  // C = factor[row] * C + A B
    const float* factor;
    vf operator()(vf product, const float* c, int row) const { return load(c) * factor[row] + product; }
};

// A is read at a[m * A_ROW + k * a_step], B at b[k * b_step + n * W].
// Not inlined: in a function of its own all accumulators stay in registers.
template <int M, int N, int A_ROW, class Left, class Right, class Finish>
[[gnu::noinline]] void tile(const Left* a, int64_t a_step, const Right* b, int64_t b_step, int64_t depth, float* c, int64_t c_row,
                 Finish finish) {
    vf sum[M][N] = {};
    for (int64_t k = 0; k < depth; ++k, a += a_step, b += b_step) {
        decltype(load_unit(b)) right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) right[n] = load_unit(b + n * W);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const auto left = broadcast(a + m * A_ROW);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) sum[m][n] = multiply_add(left, right[n], sum[m][n]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(c + m * c_row + n * W, finish(sum[m][n], c + m * c_row + n * W, m));
}

template <int N>
struct Height {
    static constexpr int value = N;
};

// Calls f with the smallest tile height that holds `rows`, as a constant.
template <class F, int M = ROW_STEP>
inline void with_height(int rows, F&& f) {
    if constexpr (M >= ROWS)
        f(Height<ROWS>{});
    else if (rows <= M)
        f(Height<M>{});
    else
        with_height<F, M + ROW_STEP>(rows, static_cast<F&&>(f));
}

// One strip of rows of C against one panel of B: `width` columns, PANEL or W.
template <int A_ROW, class Unit, class Finish>
inline void strip(int rows, const Unit* a, int64_t a_step, const Unit* b, int64_t width, int64_t depth, float* c, int64_t c_row,
                  Finish finish) {
    with_height(rows, [&](auto height) {
        constexpr int M = decltype(height)::value;
        if (width == PANEL)
            tile<M, 2, A_ROW>(a, a_step, b, PANEL, depth, c, c_row, finish);
        else
            tile<M, 1, A_ROW>(a, a_step, b, W, depth, c, c_row, finish);
    });
}

}  // namespace regard
