// What is asked of the weights, gathered in one pass over them without holding them: W = 2^(log2 e (S - lse)).
//
// With several chunks, chunk c owns the row blocks c, c + chunks, ... and has sums over rows of its own, so that every
// sum has one order.
#pragma once
#include <utility>

#include "group.h"
#include "threads.h"

namespace regard {

template <class In, class Unit>
struct Statistics {
    static constexpr int64_t HEIGHT = 2 * BLOCK;  // rows of a block

    const RegardCall& c;
    int64_t rows, pairs, key_blocks, depth;

    explicit Statistics(const RegardCall& call)
        : c(call),
          rows(call.group * call.q_len),
          pairs(call.batch * call.kv_heads),
          key_blocks((call.k_len + KEYS - 1) / KEYS),
          depth(units<Unit>(call.features)) {}

    bool run() {
        return share_out(c, pairs * c.chunks, [&] { return Worker(*this); });
    }

    // The rows of a block that fall into one bin of one head.
    struct Bin {
        int64_t map_row;       // of the sums of a chunk: (batch * heads + head) * pool_rows + bin
        int64_t received_row;  // batch * heads + head
    };

    struct Worker {
        const Statistics& f;
        const RegardCall& c;
        Scratch memory, row_memory;
        State<Unit> state;
        int64_t b = 0, chunk = 0;
        Unit* keys = nullptr;
        float *lse = nullptr, *entropy = nullptr, *top = nullptr;
        float *sums = nullptr, *peaks = nullptr, *lifts = nullptr;  // of each bin, by column of the key block
        int64_t packed_pair = -1;
        int bin_of[HEIGHT], bins = 0;
        Bin bin[HEIGHT];
        int32_t column_bin[KEYS];

        explicit Worker(const Statistics& statistics) : f(statistics), c(f.c), state(c, ScoreUnit::natural(c), f.depth, 0) {}

        bool allocate() {
            const int64_t packed = f.depth * f.key_blocks * KEYS;
            state.row = row_memory.get<Row>(HEIGHT);
            float* at = memory.get<float>(packed + HEIGHT * (f.depth + 2 * W + 1 + 3 * KEYS) + GROUP_ROWS * KEYS + 2 * W);
            if (!state.row || !at) return false;
            const auto take = [&](int64_t size) { return std::exchange(at, at + size); };
            entropy = take(HEIGHT * W);
            top = take(HEIGHT * W);
            sums = take(HEIGHT * KEYS);
            peaks = take(HEIGHT * KEYS);
            lifts = take(HEIGHT * KEYS);
            state.scores = take(GROUP_ROWS * KEYS);
            lse = take(HEIGHT);
            keys = (Unit*)take(packed + W);
            state.queries = (Unit*)take(HEIGHT * f.depth + W);
            return true;
        }

        bool task(int64_t n) {
            if (!state.row && !allocate()) return false;
            const int64_t pair = n / c.chunks, kv_head = pair % c.kv_heads;
            chunk = n % c.chunks;
            state.b = b = pair / c.kv_heads;
            if (packed_pair != pair) {
                const auto key = [&](int64_t j) { return key_is_seen(c, b, kv_head, j) ? row_of<const In>(c.k, b, kv_head, j) : nullptr; };
                pack_side_by_side<PANEL>(key, c.k_len, c.features, keys);
                packed_pair = pair;
            }
            for (int64_t first = chunk * HEIGHT; first < f.rows; first += c.chunks * HEIGHT) visit(kv_head, first);
            return true;
        }

        void visit(int64_t kv_head, int64_t first) {
            const int count = int(f.rows - first < HEIGHT ? f.rows - first : HEIGHT);
            prepare(kv_head, first, count);
            const auto [low, high] = seen_columns(c, state.row, count);
            for (int64_t start = low / KEYS * KEYS; start < high; start += KEYS) {
                const int64_t stop = start + KEYS < c.k_len ? start + KEYS : c.k_len;
                if (gathers()) {
                    std::memset(sums, 0, bins * KEYS * sizeof(float));
                    if (c.peak) std::memset(peaks, 0, bins * KEYS * sizeof(float));
                    if (c.lift) std::memset(lifts, 0, bins * KEYS * sizeof(float));
                }
                for (int r = 0; r < count; r += GROUP_ROWS) {
                    Group<Unit> group(state, r, count, start, stop);
                    if (group.empty()) continue;
                    group.score(keys + start * f.depth);
                    for (int s = 0; s < group.strips; ++s)
                        for (int n = s * ROWS; n < s * ROWS + group.height[s]; ++n)
                            take_in(r + n, group.span[s], start, stop, state.scores + n * KEYS);
                }
                if (gathers()) hand_on(start, int(stop - start));
            }
            for (int r = 0; r < count; ++r) {
                const int64_t at = row_number(c, b, state.row[r]);
                if (c.top) c.top[at] = max_across(load(top + r * W));
                if (c.entropy) c.entropy[at] = sum_across(load(entropy + r * W));
            }
        }

        bool gathers() const { return c.received || c.mass || c.peak || c.lift; }

        void prepare(int64_t kv_head, int64_t first, int count) {
            make_rows(c, b, kv_head, first, count, state.row);
            pack_side_by_side<ROWS>([&](int64_t r) { return row_of<const In>(c.q, b, state.row[r].head, state.row[r].index); },
                                    count, c.features, state.queries, state.unit.factor);
            bins = 0;
            for (int r = 0; r < count; ++r) {
                const Row& row = state.row[r];
                lse[r] = c.lse[row_number(c, b, row)];
                store(entropy + r * W, vf{});
                store(top + r * W, splat(-INF));
                const int64_t head = b * c.kv_heads * c.group + row.head, pool_rows = c.pool_rows ? c.pool_rows : 1;
                const Bin now{head * pool_rows + (c.pool_rows ? row.index * pool_rows / c.row_extent : 0), head};
                if (!bins || bin[bins - 1].map_row != now.map_row) bin[bins++] = now;
                bin_of[r] = bins - 1;
            }
        }

        // One row of a key block.
        void take_in(int r, Span span, int64_t start, int64_t stop, float* s) {
            if (span.empty()) return;
            const Row& row = state.row[r];
            if (span.masked() || c.scores_count) change_row(c, b, row, span, start, s, nullptr);
            const float row_lse = lse[r];
            float *const row_sums = sums + bin_of[r] * KEYS, *const row_peaks = peaks + bin_of[r] * KEYS;
            const bool peaked = c.peak, gathered = gathers();
            float* const row_lifts = c.lift ? lifts + bin_of[r] * KEYS : nullptr;
            const float factor = c.lift ? c.factors[row_number(c, b, row)] : 0.0f;
            vf sum = load(entropy + r * W), most = splat(-INF);
            const vf largest = splat(std::numeric_limits<float>::max());
            for (int at = span.first; at < span.last; at += W) {
                const vf score = load(s + at), surprise = row_lse - score, p = exp2(surprise * -LOG2E);
                sum += p * (surprise < largest ? surprise : largest);  // 0 * infinity would be NaN
                most = max(most, score);
                if (gathered) store(row_sums + at, load(row_sums + at) + p);
                if (peaked) store(row_peaks + at, max(load(row_peaks + at), p));
                if (row_lifts) store(row_lifts + at, max(load(row_lifts + at), p * factor));
            }
            store(entropy + r * W, sum);
            store(top + r * W, max(load(top + r * W), most));
            if (c.best_count) rank(row, span, start, stop, s, max_across(most));
        }

        // Scores above the row's least of the best take their places. Columns ascend, so equal ones stay in order.
        void rank(const Row& row, Span span, int64_t start, int64_t stop, const float* s, float most) const {
            const int64_t k = c.best_count, at_row = row_number(c, b, row) * k;
            float* const scores = c.best_scores + at_row;
            int64_t* const columns = c.best_columns + at_row;
            if (!(most > scores[k - 1])) return;
            const int last = span.last < stop - start ? span.last : int(stop - start);
            for (int at = span.first; at < last; ++at) {
                if (!(s[at] > scores[k - 1])) continue;
                int64_t place = k - 1;
                for (; place > 0 && scores[place - 1] < s[at]; --place) {
                    scores[place] = scores[place - 1];
                    columns[place] = columns[place - 1];
                }
                scores[place] = s[at];
                columns[place] = start + at;
            }
        }

        // The sums and peaks of the bins of rows, by column, to their places.
        void hand_on(int64_t start, int count) {
            const int64_t heads = c.batch * c.kv_heads * c.group;
            if (c.mass || c.peak || c.lift)
                for (int j = 0; j < count; ++j) column_bin[j] = int32_t((start + j) * c.pool_columns / c.column_extent);
            for (int n = 0; n < bins; ++n) {
                const float* const sum = sums + n * KEYS;
                const int64_t map = (chunk * heads * c.pool_rows + bin[n].map_row) * c.pool_columns;
                if (c.received) {
                    float* const to = c.received + (chunk * heads + bin[n].received_row) * c.k_len + start;
                    for (int j = 0; j < count; ++j) to[j] += sum[j];
                }
                for (int j = 0; c.mass && j < count;) {
                    float total = 0;
                    const int32_t column = column_bin[j];
                    for (; j < count && column_bin[j] == column; ++j) total += sum[j];
                    c.mass[map + column] += total;
                }
                if (c.peak) raise(peaks + n * KEYS, count, c.peak + map);
                if (c.lift) raise(lifts + n * KEYS, count, c.lift + map);
            }
        }

        // The greatest of each bin's columns to their places in one line of a map.
        void raise(const float* from, int count, float* line) const {
            for (int j = 0; j < count;) {
                float most = 0;
                const int32_t column = column_bin[j];
                for (; j < count && column_bin[j] == column; ++j) most = most > from[j] ? most : from[j];
                float& to = line[column];
                to = to > most ? to : most;
            }
        }
    };
};

}  // namespace regard
