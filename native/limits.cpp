// What this processor can do at most, for the percentages of the benchmark: multiply-adds in registers, and reading.
//
// Both work on the calling thread alone; call them from as many threads as there are cores.
#include <cstdint>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

// `rounds` rounds of ten independent multiply-adds on vectors of BYTES bytes; their floating point operations.
#define MULTIPLY_ADDS(NAME, TARGET, BYTES)                                                    \
    TARGET double NAME(int64_t rounds, float* sink) {                                         \
        typedef float V __attribute__((vector_size(BYTES)));                                  \
        V a = {}, b = {}, s0 = {}, s1, s2, s3, s4, s5, s6, s7, s8, s9;                        \
        a += *sink, b += 1e-3f;                                                               \
        s1 = s0 + 1, s2 = s0 + 2, s3 = s0 + 3, s4 = s0 + 4, s5 = s0 + 5;                      \
        s6 = s0 + 6, s7 = s0 + 7, s8 = s0 + 8, s9 = s0 + 9;                                   \
        for (int64_t round = 0; round < rounds; ++round) {                                    \
            s0 = s0 * a + b, s1 = s1 * a + b, s2 = s2 * a + b, s3 = s3 * a + b;               \
            s4 = s4 * a + b, s5 = s5 * a + b, s6 = s6 * a + b, s7 = s7 * a + b;               \
            s8 = s8 * a + b, s9 = s9 * a + b;                                                 \
        }                                                                                     \
        const V sum = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9;                        \
        for (size_t n = 0; n < BYTES / sizeof(float); ++n) *sink += sum[n];                   \
        return double(rounds) * 10 * 2 * (BYTES / sizeof(float));                             \
    }

// The exclusive or of `bytes` bytes, a multiple of 256.
#define READ(NAME, TARGET, BYTES)                                                             \
    TARGET int64_t NAME(const char* data, int64_t bytes) {                                    \
        typedef int64_t V __attribute__((vector_size(BYTES)));                                \
        V sum[4] = {};                                                                        \
        for (int64_t at = 0; at < bytes; at += 4 * BYTES)                                     \
            for (int n = 0; n < 4; ++n) {                                                     \
                V word;                                                                       \
                std::memcpy(&word, data + at + BYTES * n, BYTES);                             \
                sum[n] ^= word;                                                               \
            }                                                                                 \
        const V all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];                                      \
        int64_t one = 0;                                                                      \
        for (size_t n = 0; n < BYTES / sizeof one; ++n) one ^= all[n];                        \
        return one;                                                                           \
    }

MULTIPLY_ADDS(multiply_adds_16, , 16)
READ(read_16, , 16)
#if defined(__x86_64__)
MULTIPLY_ADDS(multiply_adds_32, __attribute__((target("avx2,fma"))), 32)
MULTIPLY_ADDS(multiply_adds_64, __attribute__((target("avx512f"))), 64)
READ(read_32, __attribute__((target("avx2"))), 32)
READ(read_64, __attribute__((target("avx512f"))), 64)
#endif

int widest() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return 64;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
    return 16;
}

}  // namespace

EXPORTED double regard_multiply_adds(int64_t rounds, float* sink) {
#if defined(__x86_64__)
    if (widest() == 64) return multiply_adds_64(rounds, sink);
    if (widest() == 32) return multiply_adds_32(rounds, sink);
#endif
    return multiply_adds_16(rounds, sink);
}

EXPORTED int64_t regard_read(const char* data, int64_t bytes) {
#if defined(__x86_64__)
    if (widest() == 64) return read_64(data, bytes);
    if (widest() == 32) return read_32(data, bytes);
#endif
    return read_16(data, bytes);
}
