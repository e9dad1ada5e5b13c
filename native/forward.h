// Forward: online softmax over key blocks (Milakov & Gimelshein 2018; Dao et al. 2022), a strip of rows at a time.
#pragma once
#include "keys.h"
#include "rows.h"
#include "threads.h"

namespace regard {

constexpr int64_t SHORT_ROWS = 4 * BLOCK;  // up to here a task packs the keys it reads; beyond, they are packed once
constexpr int64_t TASK_ROWS = 2 * BLOCK;

template <class In, class Unit>
struct Forward {
    const RegardCall& c;
    KeyShape<Unit> shape;
    int64_t rows, pairs, task_rows, row_blocks, key_blocks, value_columns;
    bool packs_once;
    Unit* packed = nullptr;    // every key block of every key/value head
    float* partial = nullptr;  // with chunks: a part's unnormalised output, its maximum and its sum a row

    explicit Forward(const RegardCall& call)
        : c(call),
          shape(call, units<Unit>(call.features), round_up(call.value_features, W)),
          rows(call.group * call.q_len),
          pairs(call.batch * call.kv_heads),
          key_blocks((call.k_len + BLOCK - 1) / BLOCK),
          value_columns(round_up(call.value_features, W)) {
        // Few tasks read the same keys where there are few rows, or where each row sees few keys.
        const bool narrow = call.mask.kind == REGARD_MASK_BAND && call.mask.band_high - call.mask.band_low <= SHORT_ROWS;
        packs_once = !narrow && (rows > SHORT_ROWS || (rows > BLOCK && pairs < c.threads));
        task_rows = packs_once ? TASK_ROWS : SHORT_ROWS;
        row_blocks = (rows + task_rows - 1) / task_rows;
    }

    int64_t partial_size() const { return value_columns + 2; }
    float* partial_at(int64_t pair, int64_t chunk, int64_t r) const {
        return partial + ((pair * c.chunks + chunk) * rows + r) * partial_size();
    }

    bool run() {
        Scratch packed_memory, partial_memory;
        if (packs_once) {
            packed = packed_memory.get<Unit>(pairs * key_blocks * shape.size());
            if (!packed) return false;
            struct Packer {
                const Forward& f;
                bool task(int64_t n) {
                    const int64_t pair = n / f.key_blocks, block = n % f.key_blocks;
                    f.shape.template pack<In>(pair, block, f.packed + n * f.shape.size());
                    return true;
                }
            };
            share_out(c, pairs * key_blocks, [&] { return Packer{*this}; });
        }
        if (c.chunks > 1) {
            partial = partial_memory.get<float>(pairs * c.chunks * rows * partial_size());
            if (!partial) return false;
        }
        if (!share_out(c, pairs * row_blocks * c.chunks, [&] { return Worker(*this); })) return false;
        if (c.chunks > 1) merge();
        return true;
    }

    void write(int64_t b, const Row& row, const float* out, float top, float total) const {
        double lse = total == 0 ? -INF : top + std::log(double(total));
        float factor = total == 0 ? 0 : c.keep_scale / total;
        if (c.sinks) {
            const double sink = c.sinks[row.head], high = lse > sink ? lse : sink;
            const double both = high == -INF ? -INF : high + std::log(std::exp(lse - high) + std::exp(sink - high));
            factor *= lse == -INF ? 0 : std::exp(lse - both);
            lse = both;
        }
        const int64_t at = row_number(c, b, row);
        c.lse[at] = float(lse);
        if (c.norms) {
            c.norms[2 * at] = top == -INF ? 0 : top;
            c.norms[2 * at + 1] = top == -INF ? 0 : float(std::exp(top - lse));
        }
        write_row(out, factor, c.value_features, row_of<In>(c.out, b, row.head, row.index));
        if (c.exact_out) write_row(out, factor, c.value_features, exact_out_row(c, b, row));
    }

    void merge() const {
        Scratch memory;
        for (int64_t pair = 0; pair < pairs; ++pair)
            for (int64_t r = 0; r < rows; ++r) {
                float* sum = partial_at(pair, 0, r);
                float *top = sum + value_columns, *total = top + 1;
                for (int64_t chunk = 1; chunk < c.chunks; ++chunk) {
                    const float* more = partial_at(pair, chunk, r);
                    const float their_top = more[value_columns];
                    if (their_top == -INF) continue;
                    const float high = *top > their_top ? *top : their_top;
                    const float mine = std::exp(*top - high), theirs = std::exp(their_top - high);
                    for (int64_t n = 0; n < value_columns; n += W)
                        store(sum + n, load(sum + n) * mine + load(more + n) * theirs);
                    *total = *total * mine + more[value_columns + 1] * theirs;
                    *top = high;
                }
                write(pair / c.kv_heads, make_row(c, pair / c.kv_heads, pair % c.kv_heads, r), sum, *top, *total);
            }
    }

    struct Worker {
        const Forward& f;
        const RegardCall& c;
        Scratch memory, row_memory;
        int64_t b = 0;
        Row* row = nullptr;
        Unit *queries, *key_block, *weights;
        float *out, *total, *top, *scores;

        explicit Worker(const Forward& forward) : f(forward), c(forward.c) {}

        bool allocate() {
            const int64_t n = f.task_rows, depth = f.shape.depth;
            row = row_memory.get<Row>(n);
            const int64_t packed_keys = f.packs_once ? 0 : f.shape.size();
            float* at = memory.get<float>(n * (depth + f.value_columns + W + 1) + W + 2 * ROWS * BLOCK + packed_keys);
            if (!row || !at) return false;
            const auto take = [&](int64_t size) { return std::exchange(at, at + size); };
            out = take(n * f.value_columns);
            total = take(n * W);
            scores = take(ROWS * BLOCK);
            weights = (Unit*)take(ROWS * BLOCK);
            key_block = (Unit*)take(packed_keys);
            queries = (Unit*)take(n * depth + W);
            top = take(n);
            return true;
        }

        bool task(int64_t n) {
            if (!row && !allocate()) return false;
            const int64_t pair = n % f.pairs, rest = n / f.pairs, chunk = rest % c.chunks;
            // From the last rows on: under a causal mask they have the most to do.
            const int64_t first_row = (f.row_blocks - 1 - rest / c.chunks) * f.task_rows;
            const int64_t left = f.rows - first_row, count = left < f.task_rows ? left : f.task_rows;
            const int64_t kv_head = pair % c.kv_heads;
            b = pair / c.kv_heads;
            prepare(kv_head, first_row, int(count));
            const auto [begin, end] = blocks(int(count), chunk);
            for (int64_t block = begin; block < end; ++block) {
                const Unit* keys = f.packs_once ? f.packed + (pair * f.key_blocks + block) * f.shape.size() : nullptr;
                const int64_t start = block * BLOCK;
                const int64_t stop = start + BLOCK < c.k_len ? start + BLOCK : c.k_len;
                for (int r = 0; r < count; r += ROWS) {
                    const int height = count - r < ROWS ? int(count - r) : ROWS;
                    const Span span = span_of(row + r, height, start, stop);
                    if (span.empty()) continue;
                    if (!keys) {
                        f.shape.template pack<In>(pair, block, key_block);
                        keys = key_block;
                    }
                    step(r, height, span, start, keys);
                }
            }
            for (int r = 0; r < count; ++r) {
                const float sum = sum_across(load(total + r * W));
                if (c.chunks == 1) {
                    f.write(b, row[r], out + r * f.value_columns, top[r], sum);
                } else {
                    float* part = f.partial_at(pair, chunk, first_row + r);
                    std::memcpy(part, out + r * f.value_columns, f.value_columns * sizeof(float));
                    part[f.value_columns] = top[r];
                    part[f.value_columns + 1] = sum;
                }
            }
            return true;
        }

        void prepare(int64_t kv_head, int64_t first_row, int count) {
            for (int r = 0; r < count; ++r) row[r] = make_row(c, b, kv_head, first_row + r);
            const auto query = [&](int64_t r) { return row_of<const In>(c.q, b, row[r].head, row[r].index); };
            pack_side_by_side<ROWS>(query, count, c.features, queries);
            std::memset(out, 0, count * f.value_columns * sizeof(float));
            std::memset(total, 0, count * W * sizeof(float));
            for (int r = 0; r < count; ++r) top[r] = -INF;
        }

        // The key blocks that these rows may touch, and of those the ones of this chunk.
        std::pair<int64_t, int64_t> blocks(int count, int64_t chunk) const {
            int64_t low = c.k_len, high = 0;
            for (int r = 0; r < count; ++r) {
                if (row[r].bits) {
                    low = 0, high = c.k_len;
                    break;
                }
                for (const Interval& seen : {row[r].first, row[r].second}) {
                    if (seen.start >= seen.stop) continue;
                    low = seen.start < low ? seen.start : low;
                    high = seen.stop > high ? seen.stop : high;
                }
            }
            if (low >= high) return {0, 0};
            const int64_t begin = low / BLOCK, end = (high + BLOCK - 1) / BLOCK, size = end - begin;
            return {begin + size * chunk / c.chunks, begin + size * (chunk + 1) / c.chunks};
        }

        // One strip of rows against one key block.
        void step(int r, int height, Span span, int64_t start, const Unit* keys) {
            const int64_t depth = f.shape.depth;
            panels(height, queries + r * depth, keys, depth, span.first, span.last, scores, c.scale);
            if (span.masked || c.scores_count)
                for (int n = 0; n < height; ++n) change_row(c, b, row[r + n], span, start, scores + n * BLOCK, nullptr);
            float rescale[ROWS + W] = {}, shift[ROWS];
            for (int n = 0; n < height; ++n) {
                vf high = splat(-INF);
                for (int at = span.first; at < span.last; at += W) high = max(high, load(scores + n * BLOCK + at));
                const float before = top[r + n], now = max_across(high);
                top[r + n] = before > now ? before : now;
                shift[n] = top[r + n] == -INF ? 0.0f : top[r + n];
                rescale[n] = before - shift[n];
            }
            for (int n = 0; n < height; n += W) store(rescale + n, exp(load(rescale + n)));
            for (int n = 0; n < height; ++n) {
                float* sums = total + (r + n) * W;
                const vf sum = c.dropout ? weigh<true>(r, n, span, start, shift[n]) : weigh<false>(r, n, span, start, shift[n]);
                store(sums, load(sums) * rescale[n] + sum);
            }
            constexpr int unit = Units<Unit>::depth;
            const int64_t first = span.first / unit, depth_of_keys = (span.last - span.first) / unit;
            strip<BLOCK / unit>(height, weights + first, 1, f.shape.values(keys) + first * f.value_columns, f.value_columns,
                                depth_of_keys, out + r * f.value_columns, f.value_columns, f.value_columns, Rescaled{rescale});
        }

        template <bool DROPOUT>
        vf weigh(int r, int n, Span span, int64_t start, float shift) {
            vf sum = {};
            for (int at = span.first; at < span.last; at += W) {
                vf p = exp(load(scores + n * BLOCK + at) - shift);
                sum += p;
                if constexpr (DROPOUT) p = kept(c, row[r + n], start + at) ? p : vf{};
                put(weights, n * BLOCK + at, p);
            }
            return sum;
        }
    };
};

}  // namespace regard
