// Copies of the operands in the order in which the tiles read them, with zeros where there is nothing to see.
#pragma once
#include <type_traits>

#include "abi.h"
#include "tile.h"

namespace regard {

// --- elements in memory, as floats or as pairs ----------------------------------------------------------------------

struct Half {  // float16
    uint16_t bits;
};
struct Brain {  // bfloat16
    uint16_t bits;
};

inline vf widen(const float* p) { return load(p); }
inline vf widen(const Brain* p) {
    return (vf)(__builtin_convertvector(load_as<vh>(p), vu) << 16);
}
inline vf widen(const Half* p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
    vf x;
    for (int n = 0; n < W; ++n) {
        const uint32_t sign = (p[n].bits & 0x8000u) << 16, rest = p[n].bits & 0x7FFFu;
        // Shifted into a float's exponent the value is 2^-112 of itself; infinity and NaN need the exponent's top.
        uint32_t word = rest << 13;
        float value;
        std::memcpy(&value, &word, 4);
        value *= 5.192296858534828e33f;
        std::memcpy(&word, &value, 4);
        if (rest >= 0x7C00u) word |= 0x7F800000u;
        word |= sign;
        std::memcpy(&value, &word, 4);
        x[n] = value;
    }
    return x;
#endif
}

inline vh rounded(vf x) {  // to bfloat16, to nearest even
    const vu bits = (vu)x;
    const vu up = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const vu quiet = (bits >> 16) | 0x40u;
    return __builtin_convertvector(x == x ? up : quiet, vh);
}
inline void narrow(float* p, vf x) { store(p, x); }
inline void narrow(Brain* p, vf x) { store_as(p, rounded(x)); }
inline void narrow(Half* p, vf x) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int n = 0; n < W; ++n) {
        const float value = x[n];
        uint32_t word;
        std::memcpy(&word, &value, 4);
        const uint32_t sign = (word >> 16) & 0x8000u, size = word & 0x7FFFFFFFu;
        uint32_t half;
        if (size > 0x7F800000u) {
            half = 0x7E00u;
        } else if (size >= 0x477FF000u) {  // rounds to 65536 or more
            half = 0x7C00u;
        } else if (size < 0x38800000u) {  // below 2^-14: the sum's last bits are the subnormal's
            float sum;
            std::memcpy(&sum, &size, 4);
            sum += 0.5f;
            std::memcpy(&half, &sum, 4);
            half -= 0x3F000000u;
        } else {
            half = (size - 0x38000000u + 0xFFFu + ((size >> 13) & 1u)) >> 13;
        }
        p[n].bits = uint16_t(sign | half);
    }
#endif
}

// W elements from `at` on of a row of `size`, zeros beyond its end; a null row is all zeros.
template <class In>
inline vf elements(const In* row, int64_t at, int64_t size) {
    if (!row || at >= size) return vf{};
    if (at + W <= size) return widen(row + at);
    In part[W] = {};
    std::memcpy(part, row + at, (size - at) * sizeof(In));
    return widen(part);
}

inline vf load_part(const float* p, int64_t count) { return elements(p, 0, count); }

// W units from `unit` on of a row of `size` elements.
template <class Unit>
struct Units;

template <>
struct Units<float> {
    static constexpr int depth = 1;  // elements a unit
    template <class In>
    static vu along(const In* row, int64_t unit, int64_t size) {
        return (vu)elements(row, unit, size);
    }
    template <class In>
    static vu whole(const In* row, int64_t unit) {
        return (vu)widen(row + unit);
    }
    // A row of the depth's next unit: here one row.
    template <class In>
    static vu across(const In* const* rows, int64_t at, int64_t size) {
        return (vu)elements(rows[0], at, size);
    }
    template <class In>
    static vu whole_across(const In* const* rows, int64_t at) {
        return (vu)widen(rows[0] + at);
    }
};

template <>
struct Units<Pair> {
    static constexpr int depth = 2;
    static vu along(const Brain* row, int64_t unit, int64_t size) {
        const int64_t at = 2 * unit;
        if (!row || at >= size) return vu{};
        if (at + 2 * W <= size) return load_as<vu>(row + at);
        Brain part[2 * W] = {};
        std::memcpy(part, row + at, (size - at) * sizeof(Brain));
        return load_as<vu>(part);
    }
    static vu whole(const Brain* row, int64_t unit) { return load_as<vu>(row + 2 * unit); }
    static vu across(const Brain* const* rows, int64_t at, int64_t size) {
        return ((vu)elements(rows[0], at, size) >> 16) | (vu)elements(rows[1], at, size);
    }
    static vu whole_across(const Brain* const* rows, int64_t at) {
        return ((vu)widen(rows[0] + at) >> 16) | (vu)widen(rows[1] + at);
    }
};

template <class Unit>
inline int64_t units(int64_t elements) {
    return (elements + Units<Unit>::depth - 1) / Units<Unit>::depth;
}
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// W floats as units of depth, at element `at` of a line.
inline void put(float* line, int64_t at, vf x) { store(line + at, x); }
#if defined(__AVX512BF16__)
inline void put(Pair* line, int64_t at, vf x) {
    const auto low = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy((uint16_t*)line + at, &low, sizeof low);
}
#endif

// --- packed forms ---------------------------------------------------------------------------------------------------

// `count` rows, SIDE of them side by side: to[(group * depth + k) * SIDE + row % SIDE]. Rows that `row_at` gives as
// null, and those that fill the last group, are zeros. Floats are multiplied by `factor`. Writes up to W - 1 units beyond
// the end.
template <int SIDE, class Unit, class RowAt>
inline void pack_side_by_side(RowAt row_at, int64_t count, int64_t size, Unit* to, float factor = 1) {
    const int64_t depth = units<Unit>(size);
    for (int64_t group = 0; group < count; group += SIDE, to += depth * SIDE)
        for (int first = 0; first < SIDE; first += W) {
            const int64_t left = count - group - first, wide = SIDE - first < W ? SIDE - first : W;
            decltype(row_at(0)) rows[W] = {};
            bool all = true;
            for (int n = 0; n < wide; ++n) {
                if (n < left) rows[n] = row_at(group + first + n);
                all &= rows[n] != nullptr;
            }
            for (int n = wide; n < W; ++n) rows[n] = all ? rows[0] : nullptr;  // what they give is overwritten
            for (int64_t k = 0; k < depth; k += W) {
                vu x[W];
                if (all && (k + W) * Units<Unit>::depth <= size) {
#pragma GCC unroll 16
                    for (int n = 0; n < W; ++n) x[n] = Units<Unit>::whole(rows[n], k);
                } else {
                    for (int n = 0; n < W; ++n) x[n] = Units<Unit>::along(rows[n], k, size);
                }
                if constexpr (std::is_same_v<Unit, float>)
#pragma GCC unroll 16
                    for (int n = 0; n < W; ++n) x[n] = (vu)((vf)x[n] * factor);
                transpose(x);
                const int64_t last = depth - k < W ? depth - k : W;
                // In ascending order, so that what spills beyond a narrow group is overwritten by its right owner.
                for (int64_t n = 0; n < last; ++n) store_as(to + (k + n) * SIDE + first, x[n]);
            }
        }
}

// Lines, one unit of depth each, cut into panels of PANEL columns; the last panel may have W.
template <class Unit>
struct Lines {
    Unit* data;
    int64_t lines, columns, origin = 0;  // the line that is counted as 0

    int64_t width(int64_t column) const { return columns - column < PANEL ? W : PANEL; }
    Unit* at(int64_t column, int64_t line) const { return data + column * lines + (origin + line) * width(column); }

    // `count` rows of `size` elements; a null one is zeros.
    template <class RowAt>
    void pack(RowAt row_at, int64_t count, int64_t size) const {
        constexpr int depth = Units<Unit>::depth;
        for (int64_t first = 0; first < count; first += depth) {
            decltype(row_at(0)) rows[depth];
            bool all = true;
            for (int n = 0; n < depth; ++n) rows[n] = row_at(first + n), all &= rows[n] != nullptr;
            int64_t column = 0;
            if (all)
                for (Unit* to = at(0, first / depth); column + PANEL <= size; column += PANEL, to += lines * PANEL) {
                    store_as(to, Units<Unit>::whole_across(rows, column));
                    store_as(to + W, Units<Unit>::whole_across(rows, column + W));
                }
            for (; column < columns; column += PANEL) {
                Unit* to = at(column, first / depth);
                store_as(to, Units<Unit>::across(rows, column, size));
                if (width(column) > W) store_as(to + W, Units<Unit>::across(rows, column + W, size));
            }
        }
    }
};

// `size` floats times `factor` into a row of another dtype.
template <class Out>
inline void write_row(const float* from, float factor, int64_t size, Out* to) {
    int64_t at = 0;
    for (; at + W <= size; at += W) narrow(to + at, load(from + at) * factor);
    if (at < size) {
        Out part[W];
        narrow(part, load_part(from + at, size - at) * factor);
        std::memcpy(to + at, part, (size - at) * sizeof(Out));
    }
}

template <class T>
inline T* row_of(const RegardTensor& x, int64_t b, int64_t h, int64_t i) {
    return static_cast<T*>(x.data) + b * x.batch + h * x.head + i * x.row;
}

}  // namespace regard
