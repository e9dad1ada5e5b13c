// Backward: one owner for each block of keys, who walks over the queries in order, so that every sum has one order.
//
//   P = exp(S - lse)     dV += Pᵀ dO      dP = dO Vᵀ      dS = P (dP - delta)      dQ += dS K      dK += dSᵀ Q
//
// where delta = sum(dO * out) - dlse a row. A gradient dH of the entropy H = sum(P (lse - S)) adds dH (lse - S - H) to
// dP - delta. With several chunks, the heads that threads come to last are split: chunk c owns the key blocks c,
// c + chunks, ...; each has a dQ of its own, and those are added in order at the end. So no thread waits long for another
// that is slower, or has a head more; and the heads before them, which one owner each has, take no more memory.
#pragma once
#include <memory>
#include <utility>

#include "keys.h"
#include "threads.h"

namespace regard {

template <class In, class Unit>
struct Backward {
    static constexpr int UNIT = Units<Unit>::depth;

    const RegardCall& c;
    int64_t rows, padded_rows, pairs, whole, key_blocks, depth, value_depth, columns, value_columns;  // pairs: `whole`, then split
    float* grad_q = nullptr;
    struct Packed;
    const Packed* shared = nullptr;  // of every split pair, for several chunks read the same rows

    explicit Backward(const RegardCall& call)
        : c(call),
          rows(call.group * call.q_len),
          padded_rows(round_up(rows, ROWS)),
          pairs(call.batch * call.kv_heads),
          whole(call.chunks == 1 ? pairs : pairs > call.threads ? (pairs / call.threads - 1) * call.threads : 0),
          key_blocks((call.k_len + BLOCK - 1) / BLOCK),
          depth(units<Unit>(call.features)),
          value_depth(units<Unit>(call.value_features)),
          columns(round_up(call.features, W)),
          value_columns(round_up(call.value_features, W)) {}

    int64_t owners(int64_t pair) const { return pair < whole ? 1 : c.chunks; }
    // Owners are counted pair by pair.
    int64_t first_owner(int64_t pair) const { return pair < whole ? pair : whole + (pair - whole) * c.chunks; }
    float* grad_q_at(int64_t pair, int64_t chunk, int64_t r) const {
        return grad_q + ((first_owner(pair) + chunk) * padded_rows + r) * columns;
    }

    bool run() {
        Scratch memory;
        grad_q = memory.get<float>(first_owner(pairs) * padded_rows * columns);
        if (!grad_q) return false;
        std::unique_ptr<Packed[]> packed;
        if (whole < pairs) {
            packed.reset(new Packed[pairs - whole]);
            struct Packer {
                const Backward& f;
                Packed* packed;
                bool task(int64_t n) { return packed[n].allocate(f) && (packed[n].fill(f, f.whole + n), true); }
            };
            if (!share_out(c, pairs - whole, [&] { return Packer{*this, packed.get()}; })) return false;
            shared = packed.get();
        }
        if (!share_out(c, first_owner(pairs), [&] { return Worker(*this); })) return false;
        packed.reset();
        struct Writer {
            const Backward& f;
            bool task(int64_t pair) {
                const RegardCall& c = f.c;
                for (int64_t r = 0; r < f.rows; ++r) {
                    float* sum = f.grad_q_at(pair, 0, r);
                    for (int64_t chunk = 1; chunk < f.owners(pair); ++chunk) {
                        const float* more = f.grad_q_at(pair, chunk, r);
                        for (int64_t n = 0; n < f.columns; n += W) store(sum + n, load(sum + n) + load(more + n));
                    }
                    const int64_t head = pair % c.kv_heads * c.group + r / c.q_len;
                    write_row(sum, c.scale, c.features, row_of<In>(c.grad_q, pair / c.kv_heads, head, r % c.q_len));
                }
                return true;
            }
        };
        return share_out(c, pairs, [&] { return Writer{*this}; });
    }

    // The rows of all query heads of a pair in the order in which the tiles read them, and what the forward pass left of them.
    struct Packed {
        Scratch memory, row_memory, seen_memory;
        Row* row = nullptr;
        std::pair<int64_t, int64_t>* seen = nullptr;  // by some row of each block of rows: from one column to another
        float *shift, *norm, *delta, *bend;
        Unit *queries, *grad_outs;
        Lines<Unit> query_lines, grad_out_lines;

        bool allocate(const Backward& f) {
            const int64_t n = f.padded_rows;
            row = row_memory.get<Row>(n);
            seen = seen_memory.get<std::pair<int64_t, int64_t>>((n + BLOCK - 1) / BLOCK);
            float* at = memory.get<float>(4 * n + n * (f.depth + f.value_depth) + n / UNIT * (f.columns + f.value_columns) + 2 * W);
            if (!row || !seen || !at) return false;
            const auto take = [&](int64_t size) { return std::exchange(at, at + size); };
            query_lines = {(Unit*)take(n / UNIT * f.columns), n / UNIT, f.columns};
            grad_out_lines = {(Unit*)take(n / UNIT * f.value_columns), n / UNIT, f.value_columns};
            queries = (Unit*)take(n * f.depth + W);
            grad_outs = (Unit*)take(n * f.value_depth + W);
            shift = take(n);
            norm = take(n);
            delta = take(n);
            bend = take(n);
            return true;
        }

        // A row that sees nothing counts as zeros, for its gradients may be anything.
        void fill(const Backward& f, int64_t pair) {
            const RegardCall& c = f.c;
            const int64_t b = pair / c.kv_heads, kv_head = pair % c.kv_heads;
            const ScoreUnit unit = ScoreUnit::of(c);
            make_rows(c, b, kv_head, 0, f.rows, row);
            for (int64_t r = 0; r < f.rows; r += BLOCK) seen[r / BLOCK] = seen_columns(c, row + r, f.rows - r < BLOCK ? f.rows - r : BLOCK);
            const auto packed = [&](const RegardTensor& x) {
                return [&](int64_t r) -> const In* {
                    const bool sees = r < f.rows && row[r].sees((c.k_len + 31) / 32);
                    return sees ? row_of<const In>(x, b, row[r].head, row[r].index) : nullptr;
                };
            };
            pack_side_by_side<ROWS>(packed(c.q), f.rows, c.features, queries, unit.factor);
            pack_side_by_side<ROWS>(packed(c.grad_out), f.rows, c.value_features, grad_outs);
            query_lines.pack(packed(c.q), f.padded_rows, c.features);
            grad_out_lines.pack(packed(c.grad_out), f.padded_rows, c.value_features);
            for (int64_t r = 0; r < f.rows; ++r) {
                const int64_t at = row_number(c, b, row[r]);
                vf sum = {};
                if (const In* grad = packed(c.grad_out)(r)) {
                    const float* out = exact_out_row(c, b, row[r]);
                    for (int64_t n = 0; n < c.value_features; n += W)
                        sum += elements(grad, n, c.value_features) * elements(out, n, c.value_features);
                }
                shift[r] = c.norms[2 * at];
                norm[r] = c.norms[2 * at + 1];
                delta[r] = sum_across(sum) - (c.grad_lse ? c.grad_lse[at] : 0);
                const float grad_entropy = c.grad_entropy && norm[r] > 0 ? c.grad_entropy[at] : 0;
                if (c.grad_entropy) delta[r] += c.grad_entropy[at] * c.entropy[at];
                if (c.delta) c.delta[at] = delta[r];
                // lse - S is -ln 2 (log2 e S - shift) - ln norm.
                bend[r] = grad_entropy / LOG2E;
                if (grad_entropy != 0) delta[r] += grad_entropy * std::log(norm[r]);
            }
        }
    };

    struct Worker {
        const Backward& f;
        const RegardCall& c;
        const ScoreUnit unit;
        Scratch memory;
        Packed own_rows;
        const Packed* all = nullptr;
        int64_t b = 0, kv_head = 0, chunk = 0;
        float *weights = nullptr, *grads, *grad_k, *grad_v;
        Unit *key_panels, *value_panels;
        Lines<Unit> key_lines;
        Unit *weight_lines, *grad_lines, *grad_rows;
        Span spans[BLOCK / ROWS];

        explicit Worker(const Backward& backward) : f(backward), c(backward.c), unit(ScoreUnit::of(c)) {}

        bool allocate() {
            const int64_t features = f.depth + f.value_depth, width = f.columns + f.value_columns;
            // A short call has few rows, and small memory costs less.
            const int64_t tile = (f.padded_rows < BLOCK ? f.padded_rows : BLOCK) * BLOCK;
            float* at = memory.get<float>(2 * tile + BLOCK * (2 * width + features) + (UNIT > 1 ? 3 * tile / UNIT : 0));
            if (!at || (f.whole && !own_rows.allocate(f))) return false;
            const auto take = [&](int64_t size) { return std::exchange(at, at + size); };
            weights = take(tile);
            grads = take(tile);
            grad_k = take(BLOCK * f.columns);
            grad_v = take(BLOCK * f.value_columns);
            key_panels = (Unit*)take(BLOCK * f.depth);
            value_panels = (Unit*)take(BLOCK * f.value_depth);
            key_lines = {(Unit*)take(BLOCK / UNIT * f.columns), BLOCK / UNIT, f.columns};
            if constexpr (UNIT == 1) {
                weight_lines = (Unit*)weights, grad_lines = grad_rows = (Unit*)grads;
            } else {
                weight_lines = (Unit*)take(tile / UNIT);
                grad_lines = (Unit*)take(tile / UNIT);
                grad_rows = (Unit*)take(tile / UNIT);
            }
            return true;
        }

        bool task(int64_t n) {
            if (!weights && !allocate()) return false;
            const int64_t split = n - f.whole, pair = split < 0 ? n : f.whole + split / c.chunks;
            chunk = split < 0 ? 0 : split % c.chunks;
            b = pair / c.kv_heads;
            kv_head = pair % c.kv_heads;
            if (split < 0) own_rows.fill(f, pair);
            all = split < 0 ? &own_rows : f.shared + (pair - f.whole);
            std::memset(f.grad_q_at(pair, chunk, 0), 0, f.padded_rows * f.columns * sizeof(float));
            for (int64_t block = chunk; block < f.key_blocks; block += f.owners(pair)) own(pair, block * BLOCK);
            return true;
        }

        // The gradients of one block of keys and values, and what it gives to the queries.
        void own(int64_t pair, int64_t start) {
            const int64_t left = c.k_len - start, count = left < BLOCK ? left : BLOCK;
            const auto packed = [&](const RegardTensor& x) {
                return [&](int64_t j) -> const In* {
                    const bool seen = j < count && key_is_seen(c, b, kv_head, start + j);
                    return seen ? row_of<const In>(x, b, kv_head, start + j) : nullptr;
                };
            };
            const int64_t tall = round_up(count, ROWS);
            std::memset(grad_k, 0, tall * f.columns * sizeof(float));
            std::memset(grad_v, 0, tall * f.value_columns * sizeof(float));
            bool is_packed = false;
            for (int64_t first = 0; first < f.rows; first += BLOCK) {
                const int rows = int(f.rows - first < BLOCK ? f.rows - first : BLOCK);
                const auto [low, high] = all->seen[first / BLOCK];
                if (high <= start || low >= start + count) continue;
                if (!find_spans(first, rows, start, start + count)) continue;
                if (!std::exchange(is_packed, true)) {
                    pack_side_by_side<PANEL>(packed(c.k), count, c.features, key_panels);
                    pack_side_by_side<PANEL>(packed(c.v), count, c.value_features, value_panels);
                    key_lines.pack(packed(c.k), round_up(count, W), c.features);
                }
                for (int s = 0; s * ROWS < rows; s += STRIPS) differentiate(first, rows, s, start, f.grad_q_at(pair, chunk, first));
                give_to_keys(first, rows, int(count));
            }
            for (int64_t j = 0; j < count; ++j) {
                write_row(grad_k + j * f.columns, c.scale, c.features, row_of<In>(c.grad_k, b, kv_head, start + j));
                write_row(grad_v + j * f.value_columns, 1, c.value_features, row_of<In>(c.grad_v, b, kv_head, start + j));
            }
        }

        // The spans of the strips of a block of rows; false where all are empty.
        bool find_spans(int64_t first, int rows, int64_t start, int64_t stop) {
            bool some = false;
            for (int s = 0; s < BLOCK / ROWS; ++s) {
                const int left = rows - s * ROWS, height = left < ROWS ? left : ROWS;
                spans[s] = left > 0 ? span_of<BLOCK>(all->row + first + s * ROWS, height, start, stop) : Span{0, 0, 0, 0};
                some |= !spans[s].empty();
            }
            return some;
        }

        // The weights of a few strips and the gradients of their scores, and from those the strips' share of dQ.
        void differentiate(int64_t first, int rows, int strip_begin, int64_t start, float* grad_q) {
            const int left = (rows - strip_begin * ROWS + ROWS - 1) / ROWS, strip_end = strip_begin + (left < STRIPS ? left : STRIPS);
            const auto height = [&](int s) { return rows - s * ROWS < ROWS ? rows - s * ROWS : ROWS; };
            for (int s = strip_begin; s < strip_end; ++s)
                fetch_changes<true>(c, chunk, b, all->row + first + s * ROWS, height(s), spans[s], start);
            for (int column = 0; column < BLOCK; column += PANEL)
                for (int s = strip_begin; s < strip_end; ++s) {
                    if (!spans[s].overlaps(column, column + PANEL)) continue;
                    const int64_t r = first + s * ROWS, to = s * ROWS * BLOCK + column;
                    strip<1>(height(s), all->queries + r * f.depth, ROWS, key_panels + column * f.depth, PANEL, f.depth, weights + to,
                             BLOCK, unit.finish<Unit>());
                    strip<1>(height(s), all->grad_outs + r * f.value_depth, ROWS, value_panels + column * f.value_depth, PANEL,
                             f.value_depth, grads + to, BLOCK, Product{});
                }
            const auto weigh_row = unit.log2 ? variant_of_weigh<true>() : variant_of_weigh<false>();
            for (int s = strip_begin; s < strip_end; ++s) {
                const int r = s * ROWS, tall = int(round_up(height(s), ROW_STEP));
                for (int n = r; n < r + height(s); ++n)
                    (this->*weigh_row)(first + n, spans[s], start, weights + n * BLOCK, grads + n * BLOCK);
                clear(weights + r * BLOCK, height(s), tall, spans[s]);
                clear(grads + r * BLOCK, height(s), tall, spans[s]);
                if constexpr (UNIT > 1) round_off(r, tall);
            }
            for (int64_t column = 0; column < f.columns; column += PANEL)
                for (int s = strip_begin; s < strip_end; ++s) {
                    if (spans[s].empty()) continue;
                    const int from = spans[s].first / UNIT, depth = (spans[s].last - spans[s].first) / UNIT;
                    strip<BLOCK / UNIT>(height(s), grad_rows + s * ROWS * BLOCK / UNIT + from, 1, key_lines.at(column, from),
                                        key_lines.width(column), depth, grad_q + s * ROWS * f.columns + column, f.columns, Added{});
                }
        }

        // Zeros where a strip's rows see nothing, and in the rows that fill it up.
        static void clear(float* lines, int height, int tall, Span span) {
            if (height == tall && span.first == 0 && span.last == BLOCK) return;
            for (int n = 0; n < tall; ++n) {
                const int before = n < height && !span.empty() ? span.first : BLOCK, after = n < height ? span.last : BLOCK;
                for (int at = 0; at < before; at += W) store(lines + n * BLOCK + at, vf{});
                for (int at = after; at < BLOCK; at += W) store(lines + n * BLOCK + at, vf{});
            }
        }

        // dV += Pᵀ dO and dK += dSᵀ Q, for each strip of keys over the strips of rows that see some of it.
        void give_to_keys(int64_t first, int rows, int count) {
            add_transposed(weight_lines, all->grad_out_lines, first, rows, count, grad_v);
            add_transposed(grad_lines, all->query_lines, first, rows, count, grad_k);
        }

        void add_transposed(const Unit* left, const Lines<Unit>& right, int64_t first, int rows, int count, float* sum) {
            for (int64_t column = 0; column < right.columns; column += PANEL)
                for (int j = 0; j < count; j += ROWS) {
                    int begin = 0, end = BLOCK / ROWS;
                    while (begin < end && !spans[begin].overlaps(j, j + ROWS)) ++begin;
                    while (begin < end && !spans[end - 1].overlaps(j, j + ROWS)) --end;
                    if (begin == end) continue;
                    const int last = end * ROWS < rows ? end * ROWS : rows;
                    const int64_t line = begin * ROWS / UNIT, lines = units<Unit>(last) - line;
                    strip<1>(count - j < ROWS ? count - j : ROWS, left + line * BLOCK + j, BLOCK,
                             right.at(column, first / UNIT + line), right.width(column), lines, sum + j * right.columns + column,
                             right.columns, Added{});
                }
        }

        template <bool LOG2>
        auto variant_of_weigh() const {
            if (c.grad_entropy) return c.dropout ? &Worker::weigh<LOG2, true, true> : &Worker::weigh<LOG2, false, true>;
            return c.dropout ? &Worker::weigh<LOG2, true, false> : &Worker::weigh<LOG2, false, false>;
        }

        // One row: scores to (dropped) weights in p, the weights' gradients to the scores' in ds.
        template <bool LOG2, bool DROPOUT, bool ENTROPY>
        void weigh(int64_t r, Span span, int64_t start, float* p, float* ds) const {
            const float least = all->shift[r], share = all->norm[r], level = all->delta[r], bent = all->bend[r];
            const uint32_t dropout = all->row[r].dropout, drop_below = c.drop_below;
            float slope[BLOCK];
            if (span.masked() || c.scores_count) change_row(c, b, all->row[r], span, start, p, slope);
            for (int at = span.first; at < span.last; at += W) {
                const vf difference = load(p + at) - least, exponent = LOG2 ? difference : difference * LOG2E;
                const vf weight = exp2(exponent) * share;
                vf dropped = weight, grad = load(ds + at);
                if constexpr (DROPOUT) {
                    const vi keep = kept(dropout, drop_below, start + at);
                    dropped = keep ? weight * c.keep_scale : vf{};
                    grad = keep ? grad * c.keep_scale : vf{};
                }
                if constexpr (ENTROPY) grad -= bent * max(exponent, splat(LEAST));
                store(p + at, dropped);
                store(ds + at, weight * (grad - level));
            }
            if (c.scores_count) unchange_row(c, chunk, b, all->row[r], span, start, ds, slope);
        }

        // A strip of weights and gradients rounded to pairs: of rows for dV and dK, of columns for dQ.
        void round_off(int r, int tall) {
            for (int n = r; n < r + tall; ++n)
                for (int at = 0; at < BLOCK; at += W) store_as((uint16_t*)grad_rows + n * BLOCK + at, rounded(load(grads + n * BLOCK + at)));
            for (int n = r; n < r + tall; n += 2)
                for (int at = 0; at < BLOCK; at += W)
                    for (const auto& [from, to] : {std::pair{weights, weight_lines}, std::pair{grads, grad_lines}}) {
                        const vu low = __builtin_convertvector(rounded(load(from + n * BLOCK + at)), vu);
                        const vu high = __builtin_convertvector(rounded(load(from + (n + 1) * BLOCK + at)), vu);
                        store_as(to + n / 2 * BLOCK + at, low | high << 16);
                    }
        }
    };
};

}  // namespace regard
