// Few query rows, as in decoding: keys and values are read once, in order, where they are. Packing them would take longer
// than the few products they enter.
#pragma once
#include "group.h"

namespace regard {

constexpr int DIRECT_ROWS = 2 * ROWS;

template <int FIRST>
struct EverySecond {
    static constexpr int at(int n) { return 2 * n + FIRST; }
};

// N W neighbouring elements. Of 2 W bfloat16 first the even ones, then the odd ones: that takes one instruction a vector.
template <class In, int N>
inline void load_all(const In* p, vf (&x)[N]) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) x[n] = widen(p + n * W);
}
template <int N>
inline void load_all(const Brain* p, vf (&x)[N]) {
    if constexpr (N == 1) x[0] = widen(p);
#pragma GCC unroll 8
    for (int n = 0; n + 2 <= N; n += 2) {
        const vu both = load_as<vu>(p + n * W);
        x[n] = (vf)(both << 16), x[n + 1] = (vf)(both & 0xFFFF0000u);
    }
}

// Vectors in their own order to that of load_all, and back.
template <class In, int N>
inline void into_order_of(vf (&x)[N]) {
    if constexpr (std::is_same_v<In, Brain>)
#pragma GCC unroll 8
        for (int n = 0; n + 2 <= N; n += 2) {
            const vu a = (vu)x[n], b = (vu)x[n + 1];
            x[n] = (vf)shuffled<EverySecond<0>>(a, b), x[n + 1] = (vf)shuffled<EverySecond<1>>(a, b);
        }
}
template <class In, int N>
inline void out_of_order_of(vf (&x)[N]) {
    if constexpr (std::is_same_v<In, Brain>)
#pragma GCC unroll 8
        for (int n = 0; n + 2 <= N; n += 2) {
            const vu a = (vu)x[n], b = (vu)x[n + 1];
            x[n] = (vf)zip_low(a, b), x[n + 1] = (vf)zip_high(a, b);
        }
}

// Calls f(column, number) for every N W columns, the number being N, and with smaller numbers for those that are left.
template <int N>
struct Vectors {
    static constexpr int value = N;
};
template <int N = 2, class F>
[[gnu::always_inline]] inline void for_vectors(int64_t columns, F&& f, int64_t at = 0) {
    for (; at + N * W <= columns; at += N * W) f(at, Vectors<N>{});
    if constexpr (N > 1)
        if (at < columns) for_vectors<N / 2>(columns, f, at);
}

// A row of a multiple of W elements, in the order of load_all.
template <class In>
inline void read_row(const In* from, int64_t size, float* to) {
    for_vectors(size, [&](int64_t at, auto number) {
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
        const int first = seen.start / W * W, last = int(round_up(seen.stop, W));
        for (int j = first; j < last; j += AT_ONCE) {
            const int end = last - j < AT_ONCE ? last : j + AT_ONCE;
            int r = 0;
            for (; count - r > 5 || count - r == 4; r += 4) score<4>(r, j, end);
            for (; r + 3 <= count; r += 3) score<3>(r, j, end);
            if (r + 2 == count) score<2>(r, j, end);
            if (r + 1 == count) score<1>(r, j, end);
        }
        Group<float> group(state, 0, start);
        for (int r = 0; r < count; r += ROWS, ++group.strips) {
            group.height[group.strips] = count - r < ROWS ? count - r : ROWS;
            group.span[group.strips] = {first, last, int(round_up(seen.start, W)), seen.stop / W * W};
            group.weigh_strip(group.strips);
        }
        for (int s = 0; s < group.strips; ++s) add_strip<ROWS>(s, group);
    }

    // out = rescale * out + weights * values, for the rows of a strip. So many columns at once that no sum waits for itself.
    template <int M>
    void add_strip(int s, const Group<float>& group) const {
        if constexpr (M > 1)
            if (group.height[s] < M) return add_strip<M - 1>(s, group);
        const In* values = row_of<const In>(c.v, state.b, kv_head, start + seen.start);
        for_vectors<M == 1 ? 8 : M == 2 || (M == 3 && !std::is_same_v<In, Brain>) ? 4 : 2>(c.value_features, [&](int64_t column, auto number) {
            add<M, decltype(number)::value>(state.scores + s * ROWS * KEYS + seen.start, values + column,
                                            state.out + s * ROWS * state.value_columns + column, group.rescale + s * ROWS);
        });
    }

    // The scores of some keys and R rows. With its first rows a key asks for its value and for a later key, so that the
    // memory never waits: a whole row of each at a time, which it serves faster than lines here and there.
    template <int R>
    void score(int r, int begin, int end) const {
        constexpr int SIDE = R == 1 ? W : R == 4 || (R == 3 && std::is_same_v<In, Brain>) ? 2 : 4;  // keys whose sums are in registers
        const auto plus = [](vf a, vf b) { return a + b; };
        for (int j = begin; j < end; j += W) {
            vf half[R][W / 2];
#pragma GCC unroll 8
            for (int part = 0; part < W; part += SIDE) {
                if (r == 0) {
                    const int64_t key = start + j + part;
                    fetch(c.v, key, key + SIDE, c.value_features);
                    fetch(c.k, key + AHEAD, key + AHEAD + SIDE, c.features);
                }
                vf sum[R][SIDE];
                multiply(queries + r * c.features, j + part, sum);
#pragma GCC unroll 4
                for (int m = 0; m < R; ++m)
#pragma GCC unroll 8
                    for (int n = 0; n < SIDE; n += 2) half[m][(part + n) / 2] = fold_two(sum[m][n], sum[m][n + 1], plus);
            }
#pragma GCC unroll 4
            for (int m = 0; m < R; ++m)
                store(state.scores + (r + m) * KEYS + j, fold_halves(half[m], plus) * state.unit.factor);
        }
    }

    // Products of R rows and SIDE keys lane by lane. In the place of a key that is not seen stands one that is.
    template <int R, int SIDE>
    [[gnu::always_inline]] void multiply(const float* query, int first, vf (&sum)[R][SIDE]) const {
        const In* keys[SIDE];
        for (int n = 0; n < SIDE; ++n) {
            const int j = first + n < seen.start ? seen.start : first + n < seen.stop ? first + n : seen.stop - 1;
            keys[n] = row_of<const In>(c.k, state.b, kv_head, start + j);
        }
#pragma GCC unroll 4
        for (int m = 0; m < R; ++m)
#pragma GCC unroll 8
            for (int n = 0; n < SIDE; ++n) sum[m][n] = vf{};
        for_vectors<R == 3 && !std::is_same_v<In, Brain> ? 1 : 2>(c.features, [&](int64_t at, auto number) {
            constexpr int N = decltype(number)::value;
#pragma GCC unroll 16
            for (int n = 0; n < SIDE; ++n) {
                vf key[N];
                load_all(keys[n] + at, key);
#pragma GCC unroll 4
                for (int m = 0; m < R; ++m)
#pragma GCC unroll 2
                    for (int i = 0; i < N; ++i) sum[m][n] += load(query + m * c.features + at + i * W) * key[i];
            }
        });
    }

    // Inlined: GCC leaves out the call of a function without other effects.
    [[gnu::always_inline]] void fetch(const RegardTensor& x, int64_t first, int64_t last, int64_t features) const {
        for (int64_t j = first; j < last && j < c.k_len; ++j) {
            const In* row = row_of<const In>(x, state.b, kv_head, j);
            for (int64_t at = 0; at < features; at += 64 / sizeof(In)) __builtin_prefetch(row + at, 0, 2);
        }
    }

    // M rows and N vectors of columns.
    template <int M, int N>
    [[gnu::noinline]] void add(const float* weights, const In* values, float* out, const float* rescale) const {
        vf sum[M][N];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
            for (int i = 0; i < N; ++i) sum[m][i] = load(out + m * state.value_columns + i * W) * rescale[m];
            into_order_of<In>(sum[m]);
        }
        for (int64_t j = seen.start; j < seen.stop; ++j, ++weights, values += c.v.row) {
            vf value[N];
            load_all(values, value);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
                for (int i = 0; i < N; ++i) sum[m][i] += weights[m * KEYS] * value[i];
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            out_of_order_of<In>(sum[m]);
#pragma GCC unroll 8
            for (int i = 0; i < N; ++i) store(out + m * state.value_columns + i * W, sum[m][i]);
        }
    }
};

}  // namespace regard
