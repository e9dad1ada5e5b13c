// Work shared out to threads one task at a time, on the OpenMP runtime of the caller, and their scratch memory.
#pragma once
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "abi.h"

namespace regard {

// Aligned memory, kept by its thread from one task to the next; null when there is none left.
class Scratch {
   public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(memory_); }

    template <class T>
    T* get(int64_t count) {
        const size_t bytes = (size_t(count) * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            std::free(memory_);
            memory_ = std::aligned_alloc(64, bytes);
            size_ = memory_ ? bytes : 0;
#if defined(REGARD_POISON)  // for tests: whatever is read before it is written is NaN
            if (memory_) std::memset(memory_, 0xFF, bytes);
#endif
        }
        return static_cast<T*>(memory_);
    }

   private:
    void* memory_ = nullptr;
    size_t size_ = 0;
};

// Calls make_worker() once a thread and the worker's task(n) for n = 0 ... tasks - 1, each once, in ascending order of
// start. False when a task said that memory ran out.
template <class MakeWorker>
bool share_out(const RegardCall& c, int64_t tasks, MakeWorker make_worker) {
    struct Shared {
        std::atomic<int64_t> next{0};
        std::atomic<bool> failed{false};
        int64_t tasks;
        MakeWorker* make_worker;
    } shared;
    shared.tasks = tasks;
    shared.make_worker = &make_worker;
    void (*body)(void*) = [](void* data) {
        auto& s = *static_cast<Shared*>(data);
        auto worker = (*s.make_worker)();
        for (int64_t n; !s.failed && (n = s.next++) < s.tasks;)
            if (!worker.task(n)) s.failed = true;
    };
    const int64_t threads = tasks < c.threads ? tasks : c.threads;
    if (threads > 1 && c.parallel)
        c.parallel(body, &shared, unsigned(threads), 0);
    else
        body(&shared);
    return !shared.failed;
}

}  // namespace regard
