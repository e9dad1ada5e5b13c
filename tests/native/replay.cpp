// Runs the kernels on cases that Python wrote and prints how far they are from the values that Python expects.
//
// A file is a sequence of cases: the integers batch, kv_heads, group, q_len, k_len, features, value_features, band_low and
// band_high (int64), then float32 numbers: scale, q, k, v, grad_out, and the expected out, lse, grad_q, grad_k, grad_v.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "../../native/abi.h"

namespace {

using Numbers = std::vector<float>;

bool read(std::FILE* file, Numbers& to, int64_t count) {
    to.resize(size_t(count));
    return std::fread(to.data(), sizeof(float), to.size(), file) == to.size();
}

RegardTensor tensor(Numbers& x, int64_t heads, int64_t rows, int64_t width) {
    return {x.data(), heads * rows * width, rows * width, width};
}

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
    for (int64_t sizes[9]; std::fread(sizes, sizeof sizes, 1, file) == 1; ++cases) {
        const auto [b, hkv, group, lq, lk, d, dv, low, high] = sizes;
        const int64_t heads = hkv * group, rows = b * heads * lq;
        Numbers scale, q, k, v, grad_out, want_out, want_lse, want_q, want_k, want_v;
        if (!read(file, scale, 1) || !read(file, q, rows * d) || !read(file, k, b * hkv * lk * d) ||
            !read(file, v, b * hkv * lk * dv) || !read(file, grad_out, rows * dv) || !read(file, want_out, rows * dv) ||
            !read(file, want_lse, rows) || !read(file, want_q, q.size()) || !read(file, want_k, k.size()) ||
            !read(file, want_v, v.size()))
            return 2;
        Numbers out(rows * dv), lse(rows), norms(2 * rows), delta(rows), grad_q(q.size()), grad_k(k.size()), grad_v(v.size());
        RegardCall call = {};
        call.struct_size = sizeof call;
        call.dtype = REGARD_FLOAT32, call.threads = 1, call.chunks = 1;
        call.batch = b, call.kv_heads = hkv, call.group = group, call.q_len = lq, call.k_len = lk;
        call.features = d, call.value_features = dv, call.scale = scale[0], call.keep_scale = 1;
        call.q = tensor(q, heads, lq, d), call.k = tensor(k, hkv, lk, d), call.v = tensor(v, hkv, lk, dv);
        call.out = tensor(out, heads, lq, dv), call.lse = lse.data(), call.norms = norms.data();
        call.mask.kind = REGARD_MASK_BAND, call.mask.band_low = low, call.mask.band_high = high;
        if (regard_forward(&call)) return 3;
        call.exact_out = out.data(), call.delta = delta.data(), call.grad_out = tensor(grad_out, heads, lq, dv);
        call.grad_q = tensor(grad_q, heads, lq, d), call.grad_k = tensor(grad_k, hkv, lk, d);
        call.grad_v = tensor(grad_v, hkv, lk, dv);
        if (regard_backward(&call)) return 3;
        std::printf("%g %g %g %g %g\n", error(out, want_out), error(lse, want_lse), error(grad_q, want_q),
                    error(grad_k, want_k), error(grad_v, want_v));
    }
    std::fclose(file);
    return cases ? 0 : 2;
}
