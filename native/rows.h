// Query rows: where each stands, which columns it sees, and what is added to its scores.
//
// The query heads that share a key/value head are stacked: row r of them is head r / q_len, query r % q_len. Keys and
// values are then read once for all of them.
#pragma once
#include <cmath>
#include <utility>

#include "abi.h"
#include "pack.h"

namespace regard {

struct Interval {
    int32_t start, stop;
};

// What scores are counted in: times log2 e, ready for 2^x, or as they are where something is added, which may be the
// greatest of floats. Packed queries of floats hold the factor; pairs, which it would round, leave it to the product.
struct ScoreUnit {
    bool log2;
    float factor;

    static ScoreUnit natural(const RegardCall& c) { return {false, c.scale}; }
    static ScoreUnit of(const RegardCall& c) {
        return c.scores_count ? natural(c) : ScoreUnit{true, float(c.scale * LOG2_OF_E)};
    }
    double nats(double x) const { return log2 ? x / LOG2_OF_E : x; }

    float power(float difference) const { return std::exp2(log2 ? difference : difference * LOG2E); }

    template <class Unit>
    auto finish() const {
        if constexpr (std::is_same_v<Unit, float>)
            return Product{};
        else
            return Scaled{factor};
    }
};

struct Row {
    int32_t head, index;
    Interval first, second;
    const uint32_t* bits;
    uint32_t dropout;

    bool sees(int64_t key_words) const {
        if (!bits) return first.start < first.stop || second.start < second.stop;
        for (int64_t n = 0; n < key_words; ++n)
            if (bits[n]) return true;
        return false;
    }
};

// e to the power of a difference of scores, counted as they are or times log2 e.
template <bool LOG2>
inline vf power(vf difference) {
    return exp2(LOG2 ? difference : difference * LOG2E);
}

inline int32_t clamped(int64_t x, int64_t last) { return int32_t(x < 0 ? 0 : x > last ? last : x); }

inline uint32_t dropout_row(const RegardCall& c, int64_t b, int64_t h, int64_t i) {
    const uint64_t seed = uint64_t(c.seed);
    uint32_t state = 0;
    for (uint32_t word : {uint32_t(seed), uint32_t(seed >> 32), uint32_t(b), uint32_t(h), uint32_t(i)})
        state = mix32((state ^ word) + GOLDEN);
    return state;
}

inline Interval band_of(const RegardMask& mask, int64_t k_len, int64_t index) {
    return {clamped(index + mask.band_low, k_len), clamped(index + mask.band_high, k_len)};
}

inline Row make_row(const RegardCall& c, int64_t b, int64_t head, int64_t index) {
    Row row{};
    row.head = int32_t(head);
    row.index = int32_t(index);
    const RegardMask& mask = c.mask;
    const int64_t at = b * mask.batch + row.head * mask.head + row.index * mask.row;
    if (mask.kind == REGARD_MASK_BAND) {
        row.first = band_of(mask, c.k_len, index);
    } else if (mask.kind == REGARD_MASK_INTERVALS) {
        const int32_t* ends = mask.rows + at;
        row.first = {ends[0], ends[1]};
        row.second = {ends[2], ends[3]};
    } else {
        row.bits = mask.bits + at;
    }
    if (c.dropout) row.dropout = dropout_row(c, b, row.head, row.index);
    return row;
}

// The rows from the `first` on of those that share a key/value head.
inline void make_rows(const RegardCall& c, int64_t b, int64_t kv_head, int64_t first, int64_t count, Row* to) {
    if (count == 0) return;
    int64_t head = kv_head * c.group + first / c.q_len, index = first % c.q_len;
    const bool plain = c.mask.kind == REGARD_MASK_BAND && !c.dropout;
    const RegardMask mask = c.mask;
    const int64_t q_len = c.q_len, k_len = c.k_len;
    for (int64_t n = 0; n < count; ++n) {
        to[n] = plain ? Row{int32_t(head), int32_t(index), band_of(mask, k_len, index), {}, nullptr, 0} : make_row(c, b, head, index);
        if (++index == q_len) ++head, index = 0;
    }
}

// From the first to past the last column that some of the rows may see.
inline std::pair<int64_t, int64_t> seen_columns(const RegardCall& c, const Row* rows, int64_t count) {
    int64_t low = c.k_len, high = 0;
    for (int64_t r = 0; r < count; ++r) {
        if (rows[r].bits) return {0, c.k_len};
        for (const Interval& seen : {rows[r].first, rows[r].second}) {
            if (seen.start >= seen.stop) continue;
            low = seen.start < low ? seen.start : low;
            high = seen.stop > high ? seen.stop : high;
        }
    }
    return {low, high};
}

inline int64_t row_number(const RegardCall& c, int64_t b, const Row& row) {
    return (b * c.kv_heads * c.group + row.head) * c.q_len + row.index;
}
inline float* exact_out_row(const RegardCall& c, int64_t b, const Row& row) {
    return c.exact_out + b * c.out.batch + row.head * c.out.head + row.index * c.out.row;
}

// Whether at least one query may see this key; a key that none sees is packed as zeros, for 0 * NaN is NaN.
inline bool key_is_seen(const RegardCall& c, int64_t b, int64_t kv_head, int64_t j) {
    const RegardMask& mask = c.mask;
    if (mask.seen) return mask.seen[b * mask.seen_batch + kv_head * mask.seen_head + j];
    return mask.kind != REGARD_MASK_BAND ||
           (mask.band_low < mask.band_high && j >= mask.band_low && j < c.q_len - 1 + mask.band_high);
}

// The columns of one key block that a strip of rows touches, cut to whole vectors, and of those the ones that all its
// rows see.
struct Span {
    int first, last, clear_first, clear_last;
    bool masked() const { return clear_first > first || clear_last < last; }
    bool empty() const { return first >= last; }
    bool overlaps(int begin, int end) const { return first < end && begin < last; }
};

template <int SIZE>
inline Span span_of(const Row* rows, int count, int64_t block_start, int64_t block_stop) {
    int64_t low = block_stop, high = block_start;           // what some row sees
    int64_t all_low = block_start, all_high = block_stop;  // what all rows see
    for (int n = 0; n < count; ++n) {
        const Row& row = rows[n];
        if (row.bits) {
            const uint32_t* words = row.bits + block_start / 32;
            const int64_t size = (block_stop - block_start + 31) / 32;
            for (int64_t w = 0; w < size; ++w) {
                if (!words[w]) continue;
                const int64_t at = block_start + 32 * w;
                low = at < low ? at : low;
                const int64_t end = at + 32 < block_stop ? at + 32 : block_stop;
                high = end > high ? end : high;
            }
            all_high = block_start;
            continue;
        }
        for (const Interval& seen : {row.first, row.second}) {
            const int64_t start = seen.start > block_start ? seen.start : block_start;
            const int64_t stop = seen.stop < block_stop ? seen.stop : block_stop;
            if (start >= stop) continue;
            low = start < low ? start : low;
            high = stop > high ? stop : high;
        }
        all_low = row.first.start > all_low ? row.first.start : all_low;
        all_high = row.first.stop < all_high ? row.first.stop : all_high;
    }
    if (low >= high) return {0, 0, 0, 0};
    const int first = int(low - block_start) / W * W, last = int(round_up(high - block_start, W));
    const int64_t clear_first = round_up(all_low - block_start, W), clear_last = (all_high - block_start) / W * W;
    if (all_low >= all_high || clear_first >= clear_last) return {first, last < SIZE ? last : SIZE, first, first};
    return {first, last < SIZE ? last : SIZE, int(clear_first), int(clear_last)};
}

// Whether dropout keeps the weights of the columns from j on.
inline vi kept(uint32_t row, uint32_t drop_below, int64_t j) {
    const vu column = ((vu)lanes() + uint32_t(j)) * GOLDEN;
    return mix32(column ^ row) >= drop_below;
}

// The scores of hidden columns to -inf, in some columns of a block.
inline void hide(const Row& row, int first_column, int last_column, int64_t start, float* s) {
    if (row.bits) {
        const vu lane_bits = (vu)(splat(int32_t(1)) << lanes());
        for (int at = first_column; at < last_column; at += W) {
            const uint32_t word = row.bits[(start + at) / 32] >> (start + at) % 32;
            store(s + at, (splat(word) & lane_bits) != 0u ? load(s + at) : splat(-INF));
        }
        return;
    }
    const auto [first, second] = std::pair{row.first, row.second};
    // As unsigned numbers, columns before an interval lie beyond its end.
    const vu from_first = (vu)(lanes() + int32_t(start - first.start)), from_second = (vu)(lanes() + int32_t(start - second.start));
    const uint32_t size = first.stop > first.start ? first.stop - first.start : 0;
    const uint32_t more = second.stop > second.start ? second.stop - second.start : 0;
    for (int at = first_column; at < last_column; at += W) {
        vi seen = from_first + uint32_t(at) < size;
        if (more) seen |= from_second + uint32_t(at) < more;
        store(s + at, seen ? load(s + at) : splat(-INF));
    }
}

// --- score changes --------------------------------------------------------------------------------------------------

// The scores of a row in the columns of a span, changed in order and -inf where the mask hides. `slope`, where wanted,
// gets the derivative of the cap. One change after another, so that each is one loop over neighbouring numbers.
inline void change_row(const RegardCall& c, int64_t b, const Row& row, Span span, int64_t start, float* s, float* slope) {
    for (int n = 0; n < c.scores_count; ++n) {
        const RegardScore& change = c.scores[n];
        if (change.kind == REGARD_SCORE_CAP) {
            const float cap = change.cap;
            for (int at = span.first; at < span.last; at += W) {
                const vf t = tanh(load(s + at) / cap);
                store(s + at, cap * t);
                if (slope) store(slope + at, 1.0f - t * t);
            }
            continue;
        }
        const float* added = change.data + b * change.batch + row.head * change.head + row.index * change.row;
        if (!change.column) {
            for (int at = span.first; at < span.last; at += W) store(s + at, load(s + at) + *added);
            continue;
        }
        added += start;
        const int64_t there = c.k_len - start;
        int at = span.first;
        for (; at < span.last && at + W <= there; at += W) store(s + at, load(s + at) + load(added + at));
        if (at < span.last) store(s + at, load(s + at) + load_part(added + at, there - at));
    }
    if (!span.masked()) return;
    hide(row, span.first, span.clear_first, start, s);
    hide(row, span.clear_last, span.last, start, s);
}

// Asks for what a strip's score changes will read, and add to, while its products are computed: in a table of all pairs
// every row is in a memory page of its own. Inlined: GCC leaves out the call of a function without other effects.
template <bool GRADIENT>
[[gnu::always_inline]] inline void fetch_changes(const RegardCall& c, int64_t chunk, int64_t b, const Row* rows, int count, Span span,
                                                 int64_t start) {
    for (int n = 0; n < c.scores_count; ++n) {
        const RegardScore& change = c.scores[n];
        if (change.kind != REGARD_SCORE_ADD || !change.column || !change.row) continue;
        for (const Row* row = rows; row < rows + count; ++row)
            for (int at = span.first; at < span.last; at += 16) {
                const int64_t j = start + at;
                __builtin_prefetch(change.data + b * change.batch + row->head * change.head + row->index * change.row + j);
                if (GRADIENT && change.grad && change.grad_column)
                    __builtin_prefetch(change.grad + chunk * change.grad_chunk + b * change.grad_batch +
                                           row->head * change.grad_head + row->index * change.grad_row + j, 1);
            }
    }
}

// Hands the gradient of a row's changed scores to what was added, and brings it back to before the changes.
inline void unchange_row(const RegardCall& c, int64_t chunk, int64_t b, const Row& row, Span span, int64_t start, float* grad,
                         const float* slope) {
    for (int n = c.scores_count - 1; n >= 0; --n) {
        const RegardScore& change = c.scores[n];
        if (change.kind == REGARD_SCORE_CAP) {
            // Where the weight is 0 the slope may be NaN, and nothing flows.
            for (int at = span.first; at < span.last; at += W)
                store(grad + at, load(grad + at) != 0.0f ? load(grad + at) * load(slope + at) : vf{});
            continue;
        }
        if (!change.grad) continue;
        float* to = change.grad + chunk * change.grad_chunk + b * change.grad_batch + row.head * change.grad_head +
                    row.index * change.grad_row;
        if (!change.grad_column) {
            vf sum = {};
            for (int at = span.first; at < span.last; at += W) sum += load(grad + at);
            *to += sum_across(sum);
            continue;
        }
        to += start;
        const int64_t there = c.k_len - start;
        int at = span.first;
        for (; at < span.last && at + W <= there; at += W) store(to + at, load(to + at) + load(grad + at));
        for (; at < span.last && at < there; ++at) to[at] += grad[at];
    }
}

}  // namespace regard
