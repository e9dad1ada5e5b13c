// Forward: online softmax over key blocks (Milakov & Gimelshein 2018; Dao et al. 2022), a strip of rows at a time.
#pragma once
#include "direct.h"
#include "group.h"
#include "keys.h"
#include "threads.h"

namespace regard {

constexpr int64_t SHORT_ROWS = 4 * BLOCK;  // up to here a task packs the keys it reads; beyond, they are packed once
constexpr int64_t TASK_ROWS = 2 * BLOCK;

template <class In, class Unit>
struct Forward {
    const RegardCall& c;
    KeyShape<Unit> shape;
    int64_t rows, pairs, task_rows, row_blocks, key_blocks, value_columns;
    bool narrow, packs_once, direct;
    Unit* packed = nullptr;    // every key block of every key/value head
    float* partial = nullptr;  // with chunks: a part's unnormalised output and its softmax, a row

    explicit Forward(const RegardCall& call)
        : c(call),
          shape{call, units<Unit>(call.features), round_up(call.value_features, W)},
          rows(call.group * call.q_len),
          pairs(call.batch * call.kv_heads),
          key_blocks((call.k_len + KEYS - 1) / KEYS),
          value_columns(round_up(call.value_features, W)) {
        // Few tasks read the same keys where there are few rows, or where each row sees few keys.
        const int64_t width = call.mask.band_high - call.mask.band_low;
        narrow = call.mask.kind == REGARD_MASK_BAND && width <= SHORT_ROWS && call.q_len > BLOCK;
        packs_once = !narrow && (rows > SHORT_ROWS || (rows > BLOCK && pairs < c.threads));
        direct = rows <= DIRECT_ROWS && call.features % W == 0 && call.value_features % W == 0;
        task_rows = packs_once ? TASK_ROWS : rows < SHORT_ROWS ? round_up(rows + 1, GROUP_ROWS) : SHORT_ROWS;
        // Neighbouring tasks pack some keys twice, so that longer ones pack fewer.
        if (narrow && pairs * rows >= 16 * SHORT_ROWS * c.threads) task_rows = 2 * SHORT_ROWS;
        row_blocks = narrow ? call.group * ((call.q_len + task_rows - 1) / task_rows) : (rows + task_rows - 1) / task_rows;
        if (narrow) shape.keys = round_up(task_rows + (width > 0 ? width : 0), PANEL);
    }

    // The rows of a task; of a narrow mask those of one head.
    std::pair<int64_t, int64_t> rows_of(int64_t block) const {
        const int64_t blocks = narrow ? row_blocks / c.group : row_blocks, of = narrow ? c.q_len : rows;
        const int64_t first = block % blocks * task_rows, left = of - first;
        return {block / blocks * of + first, left < task_rows ? left : task_rows};
    }

    int64_t keys_in(int64_t block) const { return c.k_len - block * KEYS < KEYS ? c.k_len - block * KEYS : KEYS; }
    int64_t partial_size() const { return value_columns + int64_t(sizeof(Softmax) / sizeof(float)); }
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
                    f.shape.template pack<In>(pair, block * KEYS, f.keys_in(block), f.packed + n * f.shape.size());
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

    // `out` is a row's sum of values before it is divided by its sum of weights.
    void write(int64_t b, const Row& row, const float* out, const Softmax& of) const {
        double top = -INF, lse = -INF, entropy = 0;
        float share = of.total == 0 ? 0 : 1 / of.total;
        if (of.total != 0 && (c.lse || c.sinks || c.top || c.entropy)) {
            const ScoreUnit unit = ScoreUnit::of(c);
            const float rest = std::log(of.total);
            top = unit.nats(of.shift);
            lse = top + rest;
            if (c.entropy) entropy = rest - unit.nats(of.moment) / of.total;
        }
        if (c.sinks) {
            const double sink = c.sinks[row.head], high = lse > sink ? lse : sink;
            const double both = high == -INF ? -INF : high + std::log(std::exp(lse - high) + std::exp(sink - high));
            const double keys = lse == -INF ? 0 : std::exp(lse - both), rest = sink == -INF ? 0 : std::exp(sink - both);
            share *= float(keys);
            entropy = (keys == 0 ? 0 : keys * (entropy + both - lse)) + (rest == 0 ? 0 : rest * (both - sink));
            lse = both;
        }
        const int64_t at = row_number(c, b, row);
        if (c.lse) c.lse[at] = float(lse);
        if (c.top) c.top[at] = float(top);
        if (c.entropy) c.entropy[at] = float(entropy);
        if (c.norms) {
            c.norms[2 * at] = of.shift == -INF ? 0 : of.shift;
            c.norms[2 * at + 1] = share;
        }
        const float factor = share * c.keep_scale;
        write_row(out, factor, c.value_features, row_of<In>(c.out, b, row.head, row.index));
        if (c.exact_out) write_row(out, factor, c.value_features, exact_out_row(c, b, row));
    }

    Softmax softmax_at(const float* partial) const {
        Softmax x;
        std::memcpy(&x, partial + value_columns, sizeof x);
        return x;
    }

    void merge() const {
        const ScoreUnit unit = ScoreUnit::of(c);
        for (int64_t pair = 0; pair < pairs; ++pair)
            for (int64_t r = 0; r < rows; ++r) {
                float* sum = partial_at(pair, 0, r);
                Softmax all = softmax_at(sum);
                for (int64_t chunk = 1; chunk < c.chunks; ++chunk) {
                    const float* more = partial_at(pair, chunk, r);
                    const Softmax part = softmax_at(more);
                    if (part.shift == -INF) continue;
                    const float high = all.shift > part.shift ? all.shift : part.shift;
                    const float mine = unit.power(all.shift - high), theirs = unit.power(part.shift - high);
                    for (int64_t n = 0; n < value_columns; n += W)
                        store(sum + n, load(sum + n) * mine + load(more + n) * theirs);
                    const auto moment = [high](const Softmax& x) {
                        return x.moment + x.total * (x.shift - high > LEAST ? x.shift - high : LEAST);
                    };
                    all = {high, all.total * mine + part.total * theirs, moment(all) * mine + moment(part) * theirs};
                }
                const int64_t head = pair % c.kv_heads * c.group + r / c.q_len;
                write(pair / c.kv_heads, make_row(c, pair / c.kv_heads, head, r % c.q_len), sum, all);
            }
    }

    struct Worker {
        const Forward& f;
        const RegardCall& c;
        Scratch memory, row_memory;
        State<Unit> state;
        Unit* key_block = nullptr;
        float* query_rows = nullptr;

        explicit Worker(const Forward& forward)
            : f(forward), c(forward.c), state(c, ScoreUnit::of(c), forward.shape.depth, forward.value_columns) {}

        bool allocate() {
            const int64_t n = f.task_rows, depth = f.shape.depth;
            state.row = row_memory.get<Row>(n);
            const int64_t packed_keys = f.packs_once ? 0 : f.shape.size(), plain = f.direct ? f.rows * c.features : 0;
            const int64_t moments = c.entropy ? n * W : 0;
            float* at = memory.get<float>(n * (depth + f.value_columns + W + 1) + moments + 2 * W + 2 * GROUP_ROWS * KEYS + packed_keys + plain);
            if (!state.row || !at) return false;
            const auto take = [&](int64_t size) { return std::exchange(at, at + size); };
            state.out = take(n * f.value_columns);
            state.total = take(n * W);
            state.moment = moments ? take(moments) : nullptr;
            state.scores = take(GROUP_ROWS * KEYS);
            state.weights = std::is_same_v<Unit, float> ? (Unit*)state.scores : (Unit*)take(GROUP_ROWS * KEYS);
            key_block = (Unit*)take(packed_keys);
            query_rows = take(plain);
            state.queries = (Unit*)take(n * depth + W);
            state.shift = take(n);
            return true;
        }

        bool task(int64_t n) {
            if (!state.row && !allocate()) return false;
            const int64_t pair = n % f.pairs, rest = n / f.pairs, chunk = rest % c.chunks;
            // From the last rows on: under a causal mask they have the most to do.
            const auto [first_row, count] = f.rows_of(f.row_blocks - 1 - rest / c.chunks);
            const int64_t b = pair / c.kv_heads, kv_head = pair % c.kv_heads;
            prepare(b, kv_head, first_row, int(count));
            const auto [low, high] = seen_columns(c, state.row, count);
            if (f.narrow)
                by_groups(pair, chunk, int(count), low, high);
            else
                by_blocks(pair, chunk, int(count), low, high);
            for (int r = 0; r < count; ++r) {
                const Softmax softmax = state.softmax(r);
                const float* const sum = state.out + r * f.value_columns;
                if (c.chunks == 1) {
                    f.write(b, state.row[r], sum, softmax);
                } else {
                    float* part = f.partial_at(pair, chunk, first_row + r);
                    std::memcpy(part, sum, f.value_columns * sizeof(float));
                    std::memcpy(part + f.value_columns, &softmax, sizeof softmax);
                }
            }
            return true;
        }

        // Blocks of keys one after another, each for all rows.
        void by_blocks(int64_t pair, int64_t chunk, int count, int64_t low, int64_t high) {
            const int64_t from = low / KEYS, size = high > low ? (high + KEYS - 1) / KEYS - from : 0;
            const int64_t begin = from + size * chunk / c.chunks, end = from + size * (chunk + 1) / c.chunks;
            for (int64_t block = begin; block < end; ++block) {
                const Unit* keys = f.packs_once ? f.packed + (pair * f.key_blocks + block) * f.shape.size() : nullptr;
                const int64_t start = block * KEYS, stop = start + f.keys_in(block);
                if (f.direct) {
                    const Interval seen = common_interval(state.row, count, start, stop);
                    if (seen.start < seen.stop) {
                        Direct<In>(state, query_rows, pair % c.kv_heads, count, start, seen).step();
                        continue;
                    }
                }
                for (int r = 0; r < count; r += GROUP_ROWS) {
                    Group<Unit> group(state, r, count, start, stop);
                    if (group.empty()) continue;
                    if (!keys) {
                        f.shape.template pack<In>(pair, start, stop - start, key_block);
                        keys = key_block;
                    }
                    group.step(keys, f.shape.values(keys));
                }
            }
        }

        // Few rows one after another, each group with blocks that begin where its window does: often one holds all of it.
        void by_groups(int64_t pair, int64_t chunk, int count, int64_t low, int64_t high) {
            const int64_t panels = high > low ? (high - low + PANEL - 1) / PANEL : 0;
            const int64_t begin = low + panels * chunk / c.chunks * PANEL, end = low + panels * (chunk + 1) / c.chunks * PANEL;
            const int64_t past = end < high ? end : high;
            if (begin >= past) return;
            f.shape.template pack<In>(pair, begin, past - begin, key_block);
            const Unit* const packed = key_block;
            for (int r = 0; r < count; r += GROUP_ROWS) {
                const auto [first, last] = seen_columns(c, state.row + r, count - r < GROUP_ROWS ? count - r : GROUP_ROWS);
                const int64_t stop = last < past ? last : past;
                for (int64_t at = first > begin ? (first - begin) / PANEL * PANEL : 0; begin + at < stop; at += KEYS) {
                    const int64_t start = begin + at;
                    Group<Unit> group(state, r, count, start, start + KEYS < stop ? start + KEYS : stop);
                    if (!group.empty()) group.step(f.shape.keys_from(packed, at), f.shape.values(packed, at));
                }
            }
        }

        void prepare(int64_t b, int64_t kv_head, int64_t first_row, int count) {
            state.b = b;
            make_rows(c, b, kv_head, first_row, count, state.row);
            const auto query = [&](int64_t r) { return row_of<const In>(c.q, b, state.row[r].head, state.row[r].index); };
            pack_side_by_side<ROWS>(query, count, c.features, state.queries, state.unit.factor);
            if (f.direct)
                for (int r = 0; r < count; ++r) read_row(query(r), c.features, query_rows + r * c.features);
            std::memset(state.out, 0, count * f.value_columns * sizeof(float));
            std::memset(state.total, 0, count * W * sizeof(float));
            if (state.moment) std::memset(state.moment, 0, count * W * sizeof(float));
            for (int r = 0; r < count; ++r) state.shift[r] = -INF;
        }
    };
};

}  // namespace regard
