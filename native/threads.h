// Work shared out to threads one task at a time, on the OpenMP runtime of the caller, and their scratch memory.
#pragma once
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "abi.h"

namespace regard {

// Large memory goes from one call to the next: the C library would give it back to the system, which hands out every
// page anew and clears it first. One block waits, the last that was freed; its first word is its size.
constexpr size_t LARGE = size_t(1) << 25, LARGEST_KEPT = size_t(1) << 28;
inline std::atomic<size_t*> waiting{nullptr};

inline void* take_memory(size_t bytes, size_t& size) {
    if (bytes >= LARGE) {
        if (size_t* block = waiting.exchange(nullptr)) {
            if (bytes <= *block && *block <= 2 * bytes) {
                size = *block;
                return block;
            }
            std::free(block);
        }
    }
    void* memory = std::aligned_alloc(64, bytes);
    size = memory ? bytes : 0;
    return memory;
}

inline void give_memory(void* memory, size_t size) {
    if (LARGE <= size && size <= LARGEST_KEPT) {
        std::memcpy(memory, &size, sizeof size);
        memory = waiting.exchange(static_cast<size_t*>(memory));
    }
    std::free(memory);
}

// Aligned memory, kept by its thread from one task to the next; null when there is none left.
class Scratch {
   public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { give_memory(memory_, size_); }

    template <class T>
    T* get(int64_t count) {
        const size_t bytes = (size_t(count) * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            give_memory(memory_, size_);
            memory_ = take_memory(bytes, size_);
#if defined(REGARD_POISON)  // for tests: whatever is read before it is written is NaN
            if (memory_) std::memset(memory_, 0xFF, size_);
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
