// A few strips of query rows against one block of packed keys: scores, weights, and the values' weighted sum.
#pragma once
#include "rows.h"

namespace regard {

constexpr int GROUP_ROWS = STRIPS * ROWS;

// What a row's softmax comes down to: the greatest score, in their unit, and sums over all keys j of the weights
// w_j = e^(s_j - shift) and, where the entropy is wanted, of w_j (s_j - shift).
struct Softmax {
    float shift, total, moment;
};

// Below, a weight is 0, and so is its product with whatever is finite.
constexpr float LEAST = -256;

// What a task keeps of its rows from one block of keys to the next, and its scratch memory.
template <class Unit>
struct State {
    const RegardCall& c;
    ScoreUnit unit;
    int64_t depth, value_columns, b = 0;
    Row* row = nullptr;
    Unit *queries = nullptr, *weights = nullptr;
    float* scores = nullptr;  // GROUP_ROWS lines of KEYS; of float units the weights take their place
    float *out = nullptr, *total = nullptr;
    float* moment = nullptr;  // as total, lane by lane; null: no entropy is wanted
    float* shift = nullptr;   // the greatest score so far; W beyond the last

    State(const RegardCall& call, ScoreUnit unit, int64_t depth, int64_t value_columns)
        : c(call), unit(unit), depth(depth), value_columns(value_columns) {}

    // The same rows, with weights of 32 bits.
    State<float> as_floats() const {
        State<float> same(c, unit, depth, value_columns);
        same.b = b, same.row = row, same.scores = same.weights = scores;
        same.out = out, same.total = total, same.moment = moment, same.shift = shift;
        return same;
    }

    Softmax softmax(int r) const {
        return {shift[r], sum_across(load(total + r * W)), moment ? sum_across(load(moment + r * W)) : 0};
    }
};

template <class Unit>
struct Group {
    const State<Unit>& w;
    const RegardCall& c;
    int row, strips = 0;
    int64_t start;
    int height[STRIPS];
    Span span[STRIPS];
    float rescale[GROUP_ROWS + W] = {};

    Group(const State<Unit>& state, int row, int64_t start) : w(state), c(state.c), row(row), start(start) {}

    Group(const State<Unit>& state, int row, int count, int64_t start, int64_t stop) : Group(state, row, start) {
        for (int r = row; r < count && strips < STRIPS; r += ROWS, ++strips) {
            height[strips] = count - r < ROWS ? count - r : ROWS;
            span[strips] = span_of<KEYS>(w.row + r, height[strips], start, stop);
        }
    }

    bool empty() const {
        for (int s = 0; s < strips; ++s)
            if (!span[s].empty()) return false;
        return true;
    }

    void step(const Unit* keys, Lines<const Unit> values) {
        score(keys);
        for (int s = 0; s < strips; ++s)
            if (!span[s].empty()) weigh_strip(s);
        add(values);
    }

    void score(const Unit* keys) {
        for (int s = 0; s < strips; ++s) fetch_changes<false>(c, 0, w.b, w.row + row + s * ROWS, height[s], span[s], start);
        const int64_t depth = w.depth;
        for (int column = 0; column < KEYS; column += PANEL)
            for (int s = 0; s < strips; ++s)
                if (span[s].overlaps(column, column + PANEL))
                    strip<1>(height[s], w.queries + (row + s * ROWS) * depth, ROWS, keys + column * depth, PANEL, depth,
                             w.scores + s * ROWS * KEYS + column, KEYS, w.unit.template finish<Unit>());
    }

    void weigh_strip(int s) {
        const Span seen = span[s];
        const int first = s * ROWS, last = first + height[s];
        vf most[W];
        for (vf& none : most) none = splat(-INF);
        for (int n = first; n < last; ++n) {
            float* const line = w.scores + n * KEYS;
            if (seen.masked() || c.scores_count) change_row(c, w.b, w.row[row + n], seen, start, line, nullptr);
            most[n - first] = greatest(line, seen);
        }
        const vf now = fold_each(most, [](vf a, vf b) { return max(a, b); });
        float* const shift = w.shift + row + first;
        const vf before = load(shift), after = max(now, before);
        std::memcpy(shift, &after, height[s] * sizeof(float));
        const vf fall = before - (after == -INF ? vf{} : after);
        store(rescale + first, w.unit.log2 ? power<true>(fall) : power<false>(fall));
        if (w.moment)
            for (int n = first; n < last; ++n) {
                const float fallen = fall[n - first] > LEAST ? fall[n - first] : LEAST;
                store(w.moment + (row + n) * W, (load(w.moment + (row + n) * W) + load(w.total + (row + n) * W) * fallen) * rescale[n]);
            }
        w.unit.log2 ? weigh_rows<true>(first, last, seen) : weigh_rows<false>(first, last, seen);
    }

    // The greatest of a line, lane by lane; in four chains, for one would wait for itself.
    static vf greatest(const float* line, Span seen) {
        vf most[4] = {splat(-INF), splat(-INF), splat(-INF), splat(-INF)};
        int at = seen.first;
        for (; at + 4 * W <= seen.last; at += 4 * W)
#pragma GCC unroll 4
            for (int n = 0; n < 4; ++n) most[n] = max(most[n], load(line + at + n * W));
        for (; at < seen.last; at += W) most[0] = max(most[0], load(line + at));
        return max(max(most[0], most[1]), max(most[2], most[3]));
    }

    template <bool LOG2>
    void weigh_rows(int first, int last, Span seen) {
        for (int n = first; n < last; ++n) {
            if (w.moment)
                c.dropout ? weigh_row<LOG2, true, true>(n, seen) : weigh_row<LOG2, false, true>(n, seen);
            else
                c.dropout ? weigh_row<LOG2, true, false>(n, seen) : weigh_row<LOG2, false, false>(n, seen);
        }
    }

    template <bool LOG2, bool DROPOUT, bool ENTROPY>
    void weigh_row(int n, Span seen) {
        const float* const scores = w.scores + n * KEYS;
        Unit* const weights = w.weights;
        // The shift of a row that sees nothing yet is -inf, and -inf - -inf would be NaN.
        const float shift = w.shift[row + n] == -INF ? 0.0f : w.shift[row + n];
        const uint32_t dropout = w.row[row + n].dropout, drop_below = c.drop_below;
        vf total = {}, moment = {};
        for (int at = seen.first; at < seen.last; at += W) {
            const vf fall = load(scores + at) - shift;
            vf p = power<LOG2>(fall);
            total += p;
            if constexpr (ENTROPY) moment += p * max(fall, splat(LEAST));
            if constexpr (DROPOUT) p = kept(dropout, drop_below, start + at) ? p : vf{};
            put(weights, n * KEYS + at, p);
        }
        float* const totals = w.total + (row + n) * W;
        store(totals, load(totals) * rescale[n] + total);
        if constexpr (ENTROPY) store(w.moment + (row + n) * W, load(w.moment + (row + n) * W) + moment);
    }

    // out = rescale * out + weights * values
    void add(Lines<const Unit> values) {
        constexpr int unit = Units<Unit>::depth;
        for (int64_t column = 0; column < values.columns; column += PANEL)
            for (int s = 0; s < strips; ++s) {
                if (span[s].empty()) continue;
                const int64_t first = span[s].first / unit, depth = (span[s].last - span[s].first) / unit;
                strip<KEYS / unit>(height[s], w.weights + s * ROWS * KEYS / unit + first, 1, values.at(column, first),
                                    values.width(column), depth, w.out + (row + s * ROWS) * values.columns + column,
                                    values.columns, Rescaled{rescale + s * ROWS});
            }
    }
};

}  // namespace regard
