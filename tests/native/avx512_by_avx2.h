// Lets a processor with AVX2 alone run the kernels' AVX-512 form: the compiler splits vectors of 16 into halves, and
// what follows stands in for the instructions that the kernels name. Included before everything else.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define __AVX512F__ 1
#if defined(EMULATED_BF16)
#define __AVX512BF16__ 1
#endif

namespace emulated {

typedef uint32_t words __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

inline __m512 cvtph_ps(__m256i x) {
    __m256 part[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))};
    __m512 whole;
    std::memcpy(&whole, part, sizeof whole);
    return whole;
}

template <int ROUNDING>
inline __m256i cvtps_ph(__m512 x) {
    __m256 part[2];
    std::memcpy(part, &x, sizeof x);
    return _mm256_set_m128i(_mm256_cvtps_ph(part[1], ROUNDING), _mm256_cvtps_ph(part[0], ROUNDING));
}

// The instructions for bfloat16 take numbers below the normal ones for zeros, and give zeros for them.
inline words normal(words x) { return (x & 0x7F800000u) == 0u ? x & 0x80000000u : x; }

// The upper of each pair is multiplied and added first, then the lower.
template <class Pairs>
inline __m512 dpbf16_ps(__m512 sum, Pairs a, Pairs b) {
    const words x = (words)a, y = (words)b;
    floats s = (floats)normal((words)sum);
    s = (floats)normal((words)(s + (floats)normal(x & 0xFFFF0000u) * (floats)normal(y & 0xFFFF0000u)));
    s = (floats)normal((words)(s + (floats)normal(x << 16) * (floats)normal(y << 16)));
    return (__m512)s;
}

inline halves cvtneps_pbh(__m512 value) {
    const floats f = (floats)value;
    const words x = normal((words)f);
    const words nearest = (x + 0x7FFFu + ((x >> 16) & 1u)) >> 16, quiet = (x >> 16) | 0x40u;
    return __builtin_convertvector(f == f ? nearest : quiet, halves);
}

}  // namespace emulated

#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_cvtps_ph(x, rounding) emulated::cvtps_ph<rounding>(x)
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#define _mm512_cvtneps_pbh emulated::cvtneps_pbh
