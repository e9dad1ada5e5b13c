// One block of keys and values, packed for the forward pass.
#pragma once
#include "rows.h"

namespace regard {

// W floats as units of depth, at element `at` of a line.
inline void put(float* line, int64_t at, vf x) { store(line + at, x); }
#if defined(__AVX512BF16__)
inline void put(Pair* line, int64_t at, vf x) {
    const auto low = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy((uint16_t*)line + at, &low, sizeof low);
}
#endif

template <class Unit>
struct KeyShape {
    const RegardCall& c;
    int64_t depth, value_columns;

    KeyShape(const RegardCall& call, int64_t depth, int64_t value_columns)
        : c(call), depth(depth), value_columns(value_columns) {}

    int64_t keys_size() const { return depth * BLOCK; }
    int64_t size() const { return round_up(keys_size() + value_columns * BLOCK / Units<Unit>::depth + W, W); }
    const Unit* values(const Unit* block) const { return block + keys_size(); }

    // Panels of PANEL keys side by side, then the values line by line; what no query sees is 0.
    template <class In>
    void pack(int64_t pair, int64_t block, Unit* to) const {
        const int64_t b = pair / c.kv_heads, h = pair % c.kv_heads, start = block * BLOCK;
        const int64_t left = c.k_len - start, count = left < BLOCK ? left : BLOCK;
        const auto row = [&](const RegardTensor& x, int64_t j) -> const In* {
            return j < count && key_is_seen(c, b, h, start + j) ? row_of<const In>(x, b, h, start + j) : nullptr;
        };
        pack_side_by_side<PANEL>([&](int64_t j) { return row(c.k, j); }, count, c.features, to);
        pack_lines([&](int64_t j) { return row(c.v, j); }, BLOCK, c.value_features, to + keys_size());
    }
};

}  // namespace regard
