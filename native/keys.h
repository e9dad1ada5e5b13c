// Neighbouring keys and values, packed for the forward pass.
#pragma once
#include "rows.h"

namespace regard {

template <class Unit>
struct KeyShape {
    const RegardCall& c;
    int64_t depth, value_columns;
    int64_t keys = KEYS;  // how many there is room for, a multiple of PANEL

    int64_t keys_size() const { return depth * keys; }
    int64_t size() const { return round_up(keys_size() + value_columns * keys / Units<Unit>::depth + W, W); }
    // What is packed, from its first keys on or from others on, a multiple of PANEL.
    const Unit* keys_from(const Unit* packed, int64_t first) const { return packed + first * depth; }
    template <class T>
    Lines<T> values(T* packed, int64_t first = 0) const {
        constexpr int unit = Units<Unit>::depth;
        return {packed + keys_size(), keys / unit, value_columns, first / unit};
    }

    // Panels of PANEL keys side by side, then the values as lines; what no query sees is 0.
    template <class In>
    void pack(int64_t pair, int64_t start, int64_t count, Unit* to) const {
        const int64_t b = pair / c.kv_heads, h = pair % c.kv_heads;
        const auto row = [&](const RegardTensor& x, int64_t j) -> const In* {
            return j < count && key_is_seen(c, b, h, start + j) ? row_of<const In>(x, b, h, start + j) : nullptr;
        };
        pack_side_by_side<PANEL>([&](int64_t j) { return row(c.k, j); }, count, c.features, to);
        values(to).pack([&](int64_t j) { return row(c.v, j); }, round_up(count, W), c.value_features);
    }
};

}  // namespace regard
