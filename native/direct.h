// Few query rows, as in decoding: keys and values are read once, in order, where they are. Packing them would take longer
// than the few products they enter.
#pragma once
#include "group.h"

namespace regard {

constexpr int DIRECT_ROWS = 2 * ROWS;

// N W neighbouring elements. Of 2 W bfloat16 first the even ones, then the odd ones: that takes one instruction a vector.
template <class In>
inline void load_all(const In* p, vf (&x)[1]) {
    x[0] = widen(p);
}
template <class In>
inline void load_all(const In* p, vf (&x)[2]) {
    x[0] = widen(p), x[1] = widen(p + W);
}
inline void load_all(const Brain* p, vf (&x)[2]) {
    const vu both = load_as<vu>(p);
    x[0] = (vf)(both << 16), x[1] = (vf)(both & 0xFFFF0000u);
}

template <int FIRST>
struct EverySecond {
    static constexpr int at(int n) { return 2 * n + FIRST; }
};

// Vectors in their own order to that of load_all, and back.
template <class In, int N>
inline void into_order_of(vf (&x)[N]) {
    if constexpr (std::is_same_v<In, Brain> && N == 2) {
        const vu a = (vu)x[0], b = (vu)x[1];
        x[0] = (vf)shuffled<EverySecond<0>>(a, b), x[1] = (vf)shuffled<EverySecond<1>>(a, b);
    }
}
template <class In, int N>
inline void out_of_order_of(vf (&x)[N]) {
    if constexpr (std::is_same_v<In, Brain> && N == 2) {
        const vu a = (vu)x[0], b = (vu)x[1];
        x[0] = (vf)zip_low(a, b), x[1] = (vf)zip_high(a, b);
    }
}

// Calls f(column, number) for every PANEL columns, the number being 2, and for W that are left, it being 1.
template <int N>
struct Vectors {
    static constexpr int value = N;
};
template <class F>
inline void for_panels(int64_t columns, F&& f) {
    int64_t at = 0;
    for (; at + PANEL <= columns; at += PANEL) f(at, Vectors<2>{});
    if (at < columns) f(at, Vectors<1>{});
}

// A row of a multiple of W elements, in the order of load_all.
template <class In>
inline void read_row(const In* from, int64_t size, float* to) {
    for_panels(size, [&](int64_t at, auto number) {
        vf x[decltype(number)::value];
        load_all(from + at, x);
        std::memcpy(to + at, x, sizeof x);
    });
}

// The columns of a block that all rows see, where no row sees others; else an empty interval.
inline Interval common_interval(const Row* rows, int count, int64_t start, int64_t stop) {
    Interval common{0, 0};
    for (int r = 0; r < count; ++r) {
        if (rows[r].bits || rows[r].second.start < rows[r].second.stop) return {0, 0};
        const Interval seen{clamped(rows[r].first.start - start, stop - start), clamped(rows[r].first.stop - start, stop - start)};
        if (r == 0) common = seen;
        if (seen.start != common.start || seen.stop != common.stop) return {0, 0};
    }
    return common;
}

template <class In>
struct Direct {
    static constexpr int AT_ONCE = 16;  // keys that take turns with the rows while they are in the L1 cache
    static constexpr int AHEAD = 16;    // keys from the one in use to the one that is asked for

    const State<float> state;
    const RegardCall& c;
    const float* queries;  // row by row, as read_row writes them
    int64_t kv_head, start;
    int count;
    Interval seen;

    template <class Unit>
    Direct(const State<Unit>& s, const float* queries, int64_t kv_head, int count, int64_t start, Interval seen)
        : state(s.as_floats()), c(s.c), queries(queries), kv_head(kv_head), start(start), count(count), seen(seen) {}

    void step() {
        for (int j = seen.start; j < seen.stop; j += AT_ONCE) {
            const int end = seen.stop - j < AT_ONCE ? seen.stop : j + AT_ONCE;
            int r = 0;
            for (; r + 4 <= count; r += 4) score<4>(r, j, end);
            for (; r + 2 <= count; r += 2) score<2>(r, j, end);
            if (r < count) score<1>(r, j, end);
        }
        Group<float> group(state, 0, start);
        const int first = seen.start / W * W, last = int(round_up(seen.stop, W));
        for (int r = 0; r < count; r += ROWS, ++group.strips) {
            group.height[group.strips] = count - r < ROWS ? count - r : ROWS;
            group.span[group.strips] = {first, last, int(round_up(seen.start, W)), seen.stop / W * W};
            group.weigh_strip(group.strips);
        }
        const In* values = row_of<const In>(c.v, state.b, kv_head, start + seen.start);
        for_panels(c.value_features, [&](int64_t column, auto number) {
            constexpr int N = decltype(number)::value;
            for (int s = 0; s < group.strips; ++s)
                with_height(group.height[s], [&](auto height) {
                    add<decltype(height)::value, N>(state.scores + s * ROWS * KEYS + seen.start, values + column,
                                                    state.out + s * ROWS * state.value_columns + column, group.rescale + s * ROWS);
                });
        });
    }

    // The scores of some keys and R rows. With its first rows a key asks for its value and for a later key, so that the
    // memory never waits: a whole row of each at a time, which it serves faster than lines here and there.
    template <int R>
    void score(int r, int begin, int end) const {
        constexpr int SIDE = W / R;
        const float* const query = queries + r * c.features;
        for (int j = begin; j < end; j += SIDE) {
            const int some = end - j < SIDE ? end - j : SIDE;
            const In* keys[SIDE];
            for (int n = 0; n < SIDE; ++n) keys[n] = row_of<const In>(c.k, state.b, kv_head, start + j + (n < some ? n : 0));
            if (r == 0) {
                fetch(c.v, start + j, start + j + some, c.value_features);
                fetch(c.k, start + j + AHEAD, start + j + AHEAD + some, c.features);
            }
            vf sum[W];
#pragma GCC unroll 16
            for (int n = 0; n < W; ++n) sum[n] = vf{};
            for_panels(c.features, [&](int64_t at, auto number) {
                constexpr int N = decltype(number)::value;
#pragma GCC unroll 16
                for (int n = 0; n < SIDE; ++n) {
                    vf key[N];
                    load_all(keys[n] + at, key);
#pragma GCC unroll 4
                    for (int m = 0; m < R; ++m)
#pragma GCC unroll 2
                        for (int i = 0; i < N; ++i) sum[m * SIDE + n] += load(query + m * c.features + at + i * W) * key[i];
                }
            });
            const vf all = fold_each(sum, [](vf a, vf b) { return a + b; }) * state.unit.factor;
            for (int m = 0; m < R; ++m)
                std::memcpy(state.scores + (r + m) * KEYS + j, (const float*)&all + m * SIDE, some * sizeof(float));
        }
    }

    // Inlined: GCC leaves out the call of a function without other effects.
    [[gnu::always_inline]] void fetch(const RegardTensor& x, int64_t first, int64_t last, int64_t features) const {
        for (int64_t j = first; j < last && j < c.k_len; ++j) {
            const In* row = row_of<const In>(x, state.b, kv_head, j);
            for (int64_t at = 0; at < features; at += 64 / sizeof(In)) __builtin_prefetch(row + at, 0, 2);
        }
    }

    // out = rescale * out + weights * values, for M rows and N vectors of columns.
    template <int M, int N>
    [[gnu::noinline]] void add(const float* weights, const In* values, float* out, const float* rescale) const {
        vf sum[M][N];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
            for (int i = 0; i < N; ++i) sum[m][i] = load(out + m * state.value_columns + i * W) * rescale[m];
            into_order_of<In>(sum[m]);
        }
        for (int64_t j = seen.start; j < seen.stop; ++j, ++weights, values += c.v.row) {
            vf value[N];
            load_all(values, value);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
                for (int i = 0; i < N; ++i) sum[m][i] += weights[m * KEYS] * value[i];
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            out_of_order_of<In>(sum[m]);
#pragma GCC unroll 2
            for (int i = 0; i < N; ++i) store(out + m * state.value_columns + i * W, sum[m][i]);
        }
    }
};

}  // namespace regard
