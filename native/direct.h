// Few query rows, as in decoding: keys and values are read once, in order, where they are. Packing them would take longer
// than the few products they enter.
#pragma once
#include "group.h"

namespace regard {

constexpr int DIRECT_ROWS = 2 * ROWS;

inline vf load_unit(const Brain* b) { return widen(b); }
inline vf load_unit(const Half* b) { return widen(b); }

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
    const State<float> state;
    const RegardCall& c;
    const float* queries;  // row by row
    int64_t kv_head, start;
    int count;
    Interval seen;

    template <class Unit>
    Direct(const State<Unit>& s, const float* queries, int64_t kv_head, int count, int64_t start, Interval seen)
        : state(s.as_floats()), c(s.c), queries(queries), kv_head(kv_head), start(start), count(count), seen(seen) {}

    void step() {
        int r = 0;
        for (; r + 4 <= count; r += 4) score<4>(r);
        for (; r + 2 <= count; r += 2) score<2>(r);
        if (r < count) score<1>(r);
        Group<float> group(state, 0, start);
        const int first = seen.start / W * W, last = int(round_up(seen.stop, W));
        for (r = 0; r < count; r += ROWS, ++group.strips) {
            group.height[group.strips] = count - r < ROWS ? count - r : ROWS;
            group.span[group.strips] = {first, last, int(round_up(seen.start, W)), seen.stop / W * W};
            group.weigh_strip(group.strips);
        }
        const In* values = row_of<const In>(c.v, state.b, kv_head, start + seen.start);
        const int64_t panels = (c.value_features + PANEL - 1) / PANEL;
        for (int64_t column = 0; column < c.value_features; column += PANEL) {
            const int64_t panel = column / PANEL, next = start + KEYS, left = c.k_len - next, some = left < KEYS ? left : KEYS;
            fetch(c.k, next + panel * some / panels, next + (panel + 1) * some / panels, c.features);
            for (int s = 0; s < group.strips; ++s)
                add(group.height[s], state.scores + s * ROWS * KEYS + seen.start, values + column,
                    c.value_features - column < PANEL ? W : PANEL, state.out + s * ROWS * state.value_columns + column,
                    group.rescale + s * ROWS);
        }
    }

    // Each key feeds several rows. The values are asked for meanwhile, as are the next keys while values are added up, so
    // that the memory never waits.
    template <int R>
    void score(int r) const {
        constexpr int AT_ONCE = W / R;
        const float* const query = queries + r * c.features;
        for (int j = seen.start; j < seen.stop; j += AT_ONCE) {
            const int some = seen.stop - j < AT_ONCE ? seen.stop - j : AT_ONCE;
            const In* keys[AT_ONCE];
            for (int n = 0; n < AT_ONCE; ++n) keys[n] = row_of<const In>(c.k, state.b, kv_head, start + j + (n < some ? n : 0));
            vf sum[W] = {};
            for (int64_t at = 0; at < c.features; at += W) {
#pragma GCC unroll 16
                for (int n = 0; n < AT_ONCE; ++n) {
                    const vf key = widen(keys[n] + at);
#pragma GCC unroll 4
                    for (int m = 0; m < R; ++m) sum[m * AT_ONCE + n] += load(query + m * c.features + at) * key;
                }
            }
            const vf all = fold_each(sum, [](vf a, vf b) { return a + b; }) * state.unit.factor;
            for (int m = 0; m < R; ++m)
                std::memcpy(state.scores + (r + m) * KEYS + j, (const float*)&all + m * AT_ONCE, some * sizeof(float));
            if (r == 0) fetch(c.v, start + j, start + j + some, c.value_features);
        }
    }

    void fetch(const RegardTensor& x, int64_t first, int64_t last, int64_t features) const {
        for (int64_t j = first; j < last; ++j) {
            const In* row = row_of<const In>(x, state.b, kv_head, j);
            for (int64_t at = 0; at < features; at += 64 / sizeof(In)) __builtin_prefetch(row + at, 0, 2);
        }
    }

    // The values' weighted sum in one panel of columns.
    void add(int height, const float* weights, const In* values, int64_t width, float* out, const float* rescale) const {
        with_height(height, [&](auto rows) {
            constexpr int M = decltype(rows)::value;
            if (width == PANEL)
                tile<M, 2, KEYS>(weights, 1, values, c.v.row, seen.stop - seen.start, out, state.value_columns, Rescaled{rescale});
            else
                tile<M, 1, KEYS>(weights, 1, values, c.v.row, seen.stop - seen.start, out, state.value_columns, Rescaled{rescale});
        });
    }
};

}  // namespace regard
