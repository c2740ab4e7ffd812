// What ThreadSanitizer must be told about fibers; nothing at all in other builds.
#pragma once

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}

// For what a context still reads after it has said that it is done.
#define TSAN_UNSEEN __attribute__((noinline, no_sanitize("thread")))

namespace tsan {

constexpr int WARPS = 8; // of the largest block

// The emulation's own accesses are in order, because all fibers run on one thread of the host.
struct Unseen {
    Unseen() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
    ~Unseen() { AnnotateIgnoreReadsEnd("", 0), AnnotateIgnoreWritesEnd("", 0); }
};

// Contexts take long to make, so they are kept, for the fibers of later blocks and for the warps.
struct Fiber {
    void* context = nullptr;
};

struct Launch {
    void* scheduler = __tsan_get_current_fiber();
    void** warps = kept_warps(); // contexts in which warp operations read and write for all lanes
    char warp_order[WARPS] = {}; // addresses that stand for what is ordered
    char block_order = 0, start = 0, finish = 0;

    static void** kept_warps() {
        static thread_local void* warps[WARPS] = {};
        for (void*& warp : warps)
            if (!warp) warp = __tsan_create_fiber(0);
        return warps;
    }

    // The switch itself puts nothing in order (flag 1).
    TSAN_UNSEEN void to_scheduler() { __tsan_switch_to_fiber(scheduler, 1); }
    void to_fiber(Fiber& fiber) { __tsan_switch_to_fiber(fiber.context, 1); }

    template <class Fibers> TSAN_UNSEEN void begin_block(Fibers& fibers) {
        for (auto& fiber : fibers)
            if (!fiber.tsan.context) fiber.tsan.context = __tsan_create_fiber(0);
        __tsan_release(&start);
        for (int i = 0; i < WARPS; i++) __tsan_switch_to_fiber(warps[i], 1), __tsan_acquire(&start), to_scheduler();
    }
    TSAN_UNSEEN void end_block() {
        for (int i = 0; i < WARPS; i++) __tsan_switch_to_fiber(warps[i], 1), __tsan_release(&finish), to_scheduler();
        __tsan_acquire(&finish);
    }

    void begin_thread() { __tsan_acquire(&start); }
    void end_thread() { __tsan_release(&finish); }
    void release_block() { __tsan_release(&block_order); }
    void acquire_block() { __tsan_acquire(&block_order); }
    void release_warp(int warp) { __tsan_release(&warp_order[warp]); }
    void acquire_warp(int warp) { __tsan_acquire(&warp_order[warp]); }

    template <class Work> void collective(int warp, Work work) {
        __tsan_switch_to_fiber(warps[warp], 1), __tsan_acquire(&warp_order[warp]);
        work();
        __tsan_release(&warp_order[warp]), to_scheduler();
    }
};

} // namespace tsan

#else

#define TSAN_UNSEEN

namespace tsan {

struct Unseen {
    Unseen() {}
};
struct Fiber {};
struct Launch {
    void to_scheduler() {}
    void to_fiber(Fiber&) {}
    template <class Fibers> void begin_block(Fibers&) {}
    void end_block() {}
    void begin_thread() {}
    void end_thread() {}
    void release_block() {}
    void acquire_block() {}
    void release_warp(int) {}
    void acquire_warp(int) {}
    template <class Work> void collective(int, Work work) { work(); }
};

} // namespace tsan

#endif
