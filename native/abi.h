// The C ABI between Python and the kernels: one plain struct in, a status out. `abi.py` mirrors it field by field.
#pragma once
#include <cstdint>

extern "C" {

enum RegardDtype : int32_t { REGARD_FLOAT32 = 0, REGARD_BFLOAT16 = 1, REGARD_FLOAT16 = 2 };

// A 4-D operand (batch, heads, tokens, features); strides in elements, the last one is 1.
struct RegardTensor {
    void* data;
    int64_t batch, head, row;
};

enum RegardMaskKind : int32_t {
    REGARD_MASK_BAND = 0,       // row i sees the columns i + band_low <= j < i + band_high, cut to 0 ... k_len
    REGARD_MASK_INTERVALS = 1,  // row i sees rows[i][0] <= j < rows[i][1] and rows[i][2] <= j < rows[i][3]
    REGARD_MASK_BITS = 2,       // bit j % 32 of word j / 32
};

struct RegardMask {
    int32_t kind;
    int64_t band_low, band_high;
    const int32_t* rows;
    const uint32_t* bits;
    int64_t batch, head, row;  // strides of `rows` (in ints) or `bits` (in words)
    const uint8_t* seen;       // which keys some query sees, (batch, kv_head, k_len); null: derived from the band
    int64_t seen_batch, seen_head;
};

enum RegardScoreKind : int32_t { REGARD_SCORE_CAP = 0, REGARD_SCORE_ADD = 1 };

// One score change. CAP: cap * tanh(s / cap). ADD: s + data[b, h, i, j] by the strides, of which any may be 0 or negative.
struct RegardScore {
    int32_t kind;
    float cap;
    const float* data;
    int64_t batch, head, row, column;
    float* grad;  // null: not wanted
    int64_t grad_chunk, grad_batch, grad_head, grad_row, grad_column;
};

constexpr int REGARD_MAX_SCORES = 4;

typedef void (*RegardParallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

struct RegardCall {
    int64_t struct_size;
    int32_t dtype, threads;
    RegardParallel parallel;  // GOMP_parallel of the OpenMP runtime that torch uses; null: one thread
    int64_t batch, kv_heads, group, q_len, k_len, features, value_features;
    float scale, keep_scale;  // keep_scale = 1 / (1 - dropout_p)
    RegardTensor q, k, v, out;
    float* lse;          // (batch, heads, q_len), contiguous; forward: written unless null
    float* norms;        // (batch, heads, q_len, 2), contiguous: a row's greatest score, times log2 e where nothing
                         // changes scores, and the factor of its weights, which exp(s - lse) would lack digits of. As
                         // exact_out
    float* exact_out;    // (batch, heads, q_len, value_features), with the strides of out, before it is rounded: the
                         // delta of backward cancels digits that a rounded one lacks. Forward: written unless null;
                         // backward: read, and of out the strides alone
    const float* sinks;  // (heads,) or null
    RegardMask mask;
    int32_t scores_count, dropout;
    RegardScore scores[REGARD_MAX_SCORES];
    int64_t seed;
    uint32_t drop_below;  // a weight is kept iff its hash is at least this
    int32_t chunks;       // forward: parts of the keys that are merged; backward: parts of the keys with a dq each
    // backward only
    RegardTensor grad_out, grad_q, grad_k, grad_v;
    const float* grad_lse;  // (batch, heads, q_len), contiguous, or null
    const float* grad_entropy;  // as grad_lse; with it `entropy` is an input, as forward wrote it
    float* delta;  // out, unless null: sum of grad_out * out a row, less grad_lse, plus grad_entropy * entropy
    // forward and statistics; null: not wanted
    float* top;      // (batch, heads, q_len): the greatest score
    float* entropy;  // (batch, heads, q_len): sum of weight * (lse - score); forward adds the sink as one more key
    // statistics only: lse is an input, 0 for rows that see nothing; null: not wanted
    float* received;       // (chunks, batch, heads, k_len), zeros that gather the weights of all rows
    float* mass;           // (chunks, batch, heads, pool_rows, pool_columns), zeros that gather the weights of a bin;
    float* peak;           // as mass, zeros that become the greatest weight. Row i is in bin i * pool_rows / row_extent,
    float* lift;           // as mass, zeros that become the greatest product of a weight and its row's factor
    const float* factors;  // (batch, heads, q_len): at least 0, for lift
    float* best_scores;    // (batch, heads, q_len, best_count), -inf: the greatest scores, of equal ones the lower
    int64_t* best_columns;  // column first, and their columns, -1
    int64_t pool_rows, pool_columns, row_extent, column_extent, best_count;  // column j in j * pool_columns / column_extent
};

// 0: done; 1: out of memory; 2: the struct of the caller has another size.
__attribute__((visibility("default"))) int regard_forward(const RegardCall* call);
__attribute__((visibility("default"))) int regard_backward(const RegardCall* call);
__attribute__((visibility("default"))) int regard_statistics(const RegardCall* call);

// Bit n is set when this processor can run the variant n of {portable, avx2, avx512, avx512_bf16}.
__attribute__((visibility("default"))) int regard_supported_variants(void);

// Whether this processor multiplies pairs of bfloat16 faster than float32.
__attribute__((visibility("default"))) int regard_has_fast_bfloat16(void);

// The digest of the sources that this library was built from, 16 hexadecimal digits; "" where nobody counted.
__attribute__((visibility("default"))) const char* regard_build(void);

// The kernels' exponentials and hyperbolic tangent, for tests of their accuracy.
__attribute__((visibility("default"))) void regard_exp(const float* x, float* y, int64_t n);
__attribute__((visibility("default"))) void regard_exp2(const float* x, float* y, int64_t n);
__attribute__((visibility("default"))) void regard_tanh(const float* x, float* y, int64_t n);
}
