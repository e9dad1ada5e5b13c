// The entry points of one variant; compiled once for every instruction set, each into a library of its own.
#include <utility>

#include "forward.h"
#include "backward.h"
#include "statistics.h"

namespace regard {

// Runs Pass<element in memory, unit of depth> for the call's dtype.
template <template <class, class> class Pass>
int run(const RegardCall& c) {
    if (c.struct_size != sizeof(RegardCall)) return 2;
    bool done = false;
    switch (c.dtype) {
        case REGARD_FLOAT32:
            done = Pass<float, float>(c).run();
            break;
        case REGARD_BFLOAT16:
#if defined(__AVX512BF16__)
            done = Pass<Brain, Pair>(c).run();
#else
            done = Pass<Brain, float>(c).run();
#endif
            break;
        case REGARD_FLOAT16:
            done = Pass<Half, float>(c).run();
            break;
    }
    return done ? 0 : 1;
}

template <vf (*f)(vf)>
void apply(const float* x, float* y, int64_t n) {
    for (int64_t at = 0; at < n; at += W) {
        const vf value = f(load_part(x + at, n - at));
        std::memcpy(y + at, &value, sizeof(float) * (n - at < W ? n - at : W));
    }
}

}  // namespace regard

int regard_forward(const RegardCall* call) { return regard::run<regard::Forward>(*call); }
int regard_backward(const RegardCall* call) { return regard::run<regard::Backward>(*call); }
int regard_statistics(const RegardCall* call) { return regard::run<regard::Statistics>(*call); }
void regard_exp(const float* x, float* y, int64_t n) { regard::apply<regard::exp>(x, y, n); }
void regard_exp2(const float* x, float* y, int64_t n) { regard::apply<regard::exp2>(x, y, n); }
void regard_tanh(const float* x, float* y, int64_t n) { regard::apply<regard::tanh>(x, y, n); }

const char* regard_build() {
#if defined(REGARD_BUILD)
    return REGARD_BUILD;
#else
    return "";
#endif
}

int regard_has_fast_bfloat16() {
#if defined(__x86_64__)
    // AMD's take as long as float32's. On Intel (Sapphire Rapids) tiles of pairs reached 76 GFLOP/s where those of
    // float32 reached 124.
    __builtin_cpu_init();
    return __builtin_cpu_is("amd");
#else
    return 0;
#endif
}

int regard_supported_variants() {
    int variants = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    // Whatever has AVX2 has F16C, which Clang has no word for.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    variants |= avx2 << 1 | avx512 << 2 | (avx512 && __builtin_cpu_supports("avx512bf16")) << 3;
#endif
    return variants;
}
