// One block of keys and values, packed for the forward pass.
#pragma once
#include "rows.h"

namespace regard {

template <class Unit>
struct KeyShape {
    const RegardCall& c;
    int64_t depth, value_columns;

    KeyShape(const RegardCall& call, int64_t depth, int64_t value_columns)
        : c(call), depth(depth), value_columns(value_columns) {}

    int64_t keys_size() const { return depth * KEYS; }
    int64_t size() const { return round_up(keys_size() + value_columns * KEYS / Units<Unit>::depth + W, W); }
    // The values of a packed block.
    template <class T>
    Lines<T> values(T* block) const {
        return {block + keys_size(), KEYS / Units<Unit>::depth, value_columns};
    }

    // Panels of PANEL keys side by side, then the values as lines; what no query sees is 0.
    template <class In>
    void pack(int64_t pair, int64_t block, Unit* to) const {
        const int64_t b = pair / c.kv_heads, h = pair % c.kv_heads, start = block * KEYS;
        const int64_t left = c.k_len - start, count = left < KEYS ? left : KEYS;
        const auto row = [&](const RegardTensor& x, int64_t j) -> const In* {
            return j < count && key_is_seen(c, b, h, start + j) ? row_of<const In>(x, b, h, start + j) : nullptr;
        };
        pack_side_by_side<PANEL>([&](int64_t j) { return row(c.k, j); }, count, c.features, to);
        values(to).pack([&](int64_t j) { return row(c.v, j); }, round_up(count, W), c.value_features);
    }
};

}  // namespace regard
