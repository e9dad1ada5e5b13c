// Runs the kernels on cases that Python wrote and prints how far they are from the values that Python expects.
//
// A file is a sequence of cases: the integers batch, kv_heads, group, q_len, k_len, features, value_features, dtype, kind
// of mask, whether there are a bias and sinks, the seed of dropout and the bound below which it drops (int64); the mask, as
// band_low and band_high (int64), or as four integers a row or words of bits, and a byte a key that some row sees; then
// float32 numbers: scale, cap (0: none), 1 / (1 - dropout_p), bias, sinks, q, k, v, grad_out, grad_entropy, and the expected
// out, lse, top, entropy, received, grad_q, grad_k, grad_v, grad_bias.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../native/abi.h"

namespace {

using Numbers = std::vector<float>;

template <class T>
bool read(std::FILE* file, std::vector<T>& to, int64_t count) {
    to.resize(size_t(count));
    return std::fread(to.data(), sizeof(T), to.size(), file) == to.size();
}

// Numbers in the dtype of a case; what is given fits into bfloat16 as it is.
struct Operand {
    Numbers& numbers;
    std::vector<uint16_t> halves;

    Operand(Numbers& x, bool brain) : numbers(x), halves(brain ? x.size() : 0) {
        for (size_t n = 0; n < halves.size(); ++n) {
            uint32_t bits;
            std::memcpy(&bits, &x[n], sizeof bits);
            halves[n] = uint16_t(bits >> 16);
        }
    }
    RegardTensor view(int64_t heads, int64_t rows, int64_t width) {
        void* data = halves.empty() ? (void*)numbers.data() : (void*)halves.data();
        return {data, heads * rows * width, rows * width, width};
    }
    const Numbers& back() {
        for (size_t n = 0; n < halves.size(); ++n) {
            const uint32_t bits = uint32_t(halves[n]) << 16;
            std::memcpy(&numbers[n], &bits, sizeof bits);
        }
        return numbers;
    }
};

// The greatest difference, relative to the greatest expected value.
double error(const Numbers& found, const Numbers& expected) {
    double worst = 0, size = 1e-30;
    for (size_t n = 0; n < found.size(); ++n) {
        if (found[n] == expected[n]) continue;  // also two infinities
        const double off = std::fabs(double(found[n]) - expected[n]);
        worst = off > worst || std::isnan(off) ? off : worst;
        if (std::isfinite(expected[n]) && std::fabs(expected[n]) > size) size = std::fabs(expected[n]);
    }
    return worst / size;
}

}  // namespace

int main(int count, char** arguments) {
    std::FILE* file = count == 2 ? std::fopen(arguments[1], "rb") : nullptr;
    if (!file) return 2;
    int cases = 0;
    for (int64_t sizes[13]; std::fread(sizes, sizeof sizes, 1, file) == 1; ++cases) {
        const auto [b, hkv, group, lq, lk, d, dv, dtype, kind, biased, sunk, seed, drop_below] = sizes;
        const int64_t words = (lk + 31) / 32;
        const bool brain = dtype == REGARD_BFLOAT16;
        std::vector<int64_t> band;
        std::vector<int32_t> ends;
        std::vector<uint32_t> bits;
        std::vector<uint8_t> seen;
        if (kind == REGARD_MASK_BAND ? !read(file, band, 2)
                                     : !(kind == REGARD_MASK_INTERVALS ? read(file, ends, 4 * lq) : read(file, bits, words * lq)) ||
                                           !read(file, seen, lk))
            return 2;
        const int64_t heads = hkv * group, rows = b * heads * lq, pairs = biased * heads * lq * lk;
        Numbers factors, bias, sinks, q, k, v, grad_out, grad_entropy;
        Numbers want_out, want_lse, want_top, want_entropy, want_received, want_q, want_k, want_v, want_bias;
        if (!read(file, factors, 3) || !read(file, bias, pairs) || !read(file, sinks, sunk * heads) || !read(file, q, rows * d) ||
            !read(file, k, b * hkv * lk * d) || !read(file, v, b * hkv * lk * dv) || !read(file, grad_out, rows * dv) ||
            !read(file, grad_entropy, rows) || !read(file, want_out, rows * dv) || !read(file, want_lse, rows) ||
            !read(file, want_top, rows) || !read(file, want_entropy, rows) || !read(file, want_received, b * heads * lk) ||
            !read(file, want_q, q.size()) || !read(file, want_k, k.size()) || !read(file, want_v, v.size()) ||
            !read(file, want_bias, pairs))
            return 2;
        Numbers out(rows * dv), lse(rows), norms(2 * rows), delta(rows), grad_q(q.size()), grad_k(k.size()), grad_v(v.size());
        Numbers exact_out(rows * dv), top(rows), entropy(rows), received(b * heads * lk), grad_bias(pairs);
        Operand of_q(q, brain), of_k(k, brain), of_v(v, brain), of_out(out, brain), of_grad_out(grad_out, brain);
        Operand of_grad_q(grad_q, brain), of_grad_k(grad_k, brain), of_grad_v(grad_v, brain);
        RegardCall call = {};
        call.struct_size = sizeof call;
        call.dtype = int32_t(dtype), call.threads = 1, call.chunks = 1;
        call.batch = b, call.kv_heads = hkv, call.group = group, call.q_len = lq, call.k_len = lk;
        call.features = d, call.value_features = dv, call.scale = factors[0], call.keep_scale = factors[2];
        call.q = of_q.view(heads, lq, d), call.k = of_k.view(hkv, lk, d), call.v = of_v.view(hkv, lk, dv);
        call.out = of_out.view(heads, lq, dv), call.lse = lse.data(), call.norms = norms.data();
        call.exact_out = exact_out.data(), call.top = top.data(), call.entropy = entropy.data();
        if (sunk) call.sinks = sinks.data();
        if (drop_below) call.dropout = 1, call.seed = seed, call.drop_below = uint32_t(drop_below);
        if (factors[1] != 0) call.scores[call.scores_count++] = {.kind = REGARD_SCORE_CAP, .cap = factors[1]};
        if (biased)
            call.scores[call.scores_count++] = {
                .kind = REGARD_SCORE_ADD, .data = bias.data(), .head = lq * lk, .row = lk, .column = 1,
                .grad = grad_bias.data(), .grad_head = lq * lk, .grad_row = lk, .grad_column = 1,
            };
        call.mask.kind = int32_t(kind);
        if (kind == REGARD_MASK_BAND) call.mask.band_low = band[0], call.mask.band_high = band[1];
        if (kind == REGARD_MASK_INTERVALS) call.mask.rows = ends.data(), call.mask.row = 4;
        if (kind == REGARD_MASK_BITS) call.mask.bits = bits.data(), call.mask.row = words;
        if (!seen.empty()) call.mask.seen = seen.data();
        if (regard_forward(&call)) return 3;
        call.delta = delta.data(), call.grad_out = of_grad_out.view(heads, lq, dv);
        call.grad_q = of_grad_q.view(heads, lq, d), call.grad_k = of_grad_k.view(hkv, lk, d);
        call.grad_v = of_grad_v.view(hkv, lk, dv);
        call.grad_entropy = grad_entropy.data();
        if (regard_backward(&call)) return 3;
        std::printf("%g %g %g %g ", error(of_out.back(), want_out), error(of_grad_q.back(), want_q),
                    error(of_grad_k.back(), want_k), error(of_grad_v.back(), want_v));
        std::printf("%g %g %g ", error(lse, want_lse), error(top, want_top), error(entropy, want_entropy));
        for (float& x : lse) x = std::isinf(x) ? 0 : x;
        call.received = received.data(), call.top = call.entropy = nullptr;
        if (regard_statistics(&call)) return 3;
        std::printf("%g %g\n", error(received, want_received), error(grad_bias, want_bias));
    }
    std::fclose(file);
    return cases ? 0 : 2;
}
