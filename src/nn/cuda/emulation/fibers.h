// One block of CUDA threads on one CPU thread: every CUDA thread is a fiber, which runs until it waits.
//
// A GPU promises little about order between threads, and this promises less. What a kernel may not rely on is
// decided by the seed of a launch, so that a kernel that relies on it gives another result under some seed:
//   - bit 0: each warp runs to its next barrier before another one starts, or all warps advance side by side;
//   - bit 1: asynchronous copies land at once, or only when they are waited for;
//   - the order of blocks, of warps and of the lanes of a warp is random.
// Shared memory starts as NaN. A barrier or a warp operation that some threads do not reach is an error.
//
// Built with -fsanitize=thread, each fiber is a thread for the race checker, and only launches, barriers and warp
// operations put their accesses in order. Blocks follow one another there, so races between blocks stay unseen.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>
#include <algorithm>

#include "tsan.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

constexpr int WARP = 32;
constexpr size_t STACK = 64 << 10;

// Saves the registers that a call preserves and the stack pointer, and loads those of another fiber.
extern "C" void emulation_switch(void** save, void* load);
asm(R"(
.text
.local emulation_switch
.type emulation_switch,@function
emulation_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

enum class State { Ready, AtBarrier, AtWarpOperation, Done };

// A 16-byte cp.async; `from` is null where zeros are written.
struct Copy {
    void* to;
    const void* from;
    int group;
};

// Computes every lane's output of a warp operation from every lane's input. Lanes outside the mask are null.
using Collective = void (*)(const void* const* in, void* const* out);

struct Fiber {
    std::unique_ptr<char[]> stack;
    void* stack_pointer = nullptr;
    dim3 thread;
    int warp = 0, lane = 0;
    State state = State::Done;
    int line = 0; // where it waits
    unsigned mask = 0;
    const void* in = nullptr;
    void* out = nullptr;
    Collective collective = nullptr;
    std::vector<Copy> copies; // not landed
    int groups = 0;           // committed so far
    tsan::Fiber tsan;
};

// The launch that runs on this thread of the host.
struct Launch {
    dim3 grid, block_size, block;
    bool side_by_side, eager;
    std::mt19937 random;
    const std::function<void()>* kernel;
    std::vector<Fiber> fibers;
    Fiber* current = nullptr;
    std::unique_ptr<unsigned char[]> shared;
    void* scheduler = nullptr; // its stack pointer
    tsan::Launch tsan;
    char error[200] = "";
};
inline thread_local Launch* launch = nullptr;

inline Fiber& current() { return *launch->current; }

TSAN_UNSEEN inline void to_scheduler() {
    launch->tsan.to_scheduler();
    emulation_switch(&current().stack_pointer, launch->scheduler);
}

inline void report(const char* what, int line, int other) {
    const dim3& at = launch->block;
    std::snprintf(launch->error, sizeof launch->error, "%s (%d, %d) in block (%u, %u, %u)", what, line, other,
                  at.x, at.y, at.z);
}

// Ends the launch from within a fiber, which is never resumed.
inline void fail(const char* what, int line, int other) {
    report(what, line, other);
    to_scheduler();
}

inline void entry() {
    launch->tsan.begin_thread();
    (*launch->kernel)();
    {
        tsan::Unseen unseen;
        Fiber& own = current();
        if (!own.copies.empty()) fail("a thread ends before its copies have landed", 0, own.thread.x);
        launch->tsan.end_thread();
        own.state = State::Done;
    }
    to_scheduler();
}

inline void barrier(int line) {
    tsan::Unseen unseen;
    current().state = State::AtBarrier;
    current().line = line;
    launch->tsan.release_block();
    to_scheduler();
    launch->tsan.acquire_block();
}

// All lanes of `mask` meet. Once they have, the collective runs for all of them.
template <class In, class Out> Out meet(unsigned mask, int line, const In& in, Collective collective) {
    tsan::Unseen unseen;
    Out out{};
    Fiber& own = current();
    if (!(mask >> own.lane & 1)) fail("a lane is not in the mask of its own warp operation", line, own.lane);
    own.in = &in, own.out = &out, own.collective = collective, own.mask = mask, own.line = line;
    own.state = State::AtWarpOperation;
    launch->tsan.release_warp(own.warp);
    to_scheduler();
    launch->tsan.acquire_warp(own.warp);
    return out;
}

// Runs the blocks of a launch.
class Scheduler {
    Launch& own;
    const int threads, warps;

  public:
    explicit Scheduler(Launch& launch)
        : own(launch), threads(launch.block_size.x * launch.block_size.y * launch.block_size.z),
          warps((threads + WARP - 1) / WARP) {
        own.fibers = std::move(kept());
        own.fibers.resize(threads);
    }

    ~Scheduler() { kept() = std::move(own.fibers); }

    void block(dim3 index) {
        own.block = index;
        for (int i = 0; i < threads; i++) prepare(own.fibers[i], i);
        own.tsan.begin_block(own.fibers);
        while (!failed() && (any_warp_advances() || barrier_opens())) {}
        own.tsan.end_block();
    }

    bool failed() const { return own.error[0]; }

  private:
    // The fibers of the launch before, whose stacks serve again.
    static std::vector<Fiber>& kept() {
        static thread_local std::vector<Fiber> fibers;
        return fibers;
    }

    void prepare(Fiber& fiber, int i) {
        const dim3 size = own.block_size;
        fiber.thread = dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
        fiber.warp = i / WARP, fiber.lane = i % WARP;
        fiber.state = State::Ready;
        fiber.copies.clear(), fiber.groups = 0;
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        // What AddressSanitizer remembers of the frames of the block before, which never returned.
        ASAN_UNPOISON_MEMORY_REGION(fiber.stack.get(), STACK);
        // The stack of a function that is about to return to `entry`, which is aligned as after a call.
        uintptr_t top = reinterpret_cast<uintptr_t>(fiber.stack.get() + STACK) & ~uintptr_t(15);
        void** stack = reinterpret_cast<void**>(top) - 1;
        *--stack = reinterpret_cast<void*>(&entry);
        for (int saved = 0; saved < 6; saved++) *--stack = nullptr;
        fiber.stack_pointer = stack;
    }

    std::vector<int> shuffled(int count) {
        std::vector<int> order(count);
        for (int i = 0; i < count; i++) order[i] = i;
        std::shuffle(order.begin(), order.end(), own.random);
        return order;
    }

    int lanes(int warp) const { return std::min(WARP, threads - warp * WARP); }

    bool any_warp_advances() {
        bool moved = false;
        for (int warp : shuffled(warps)) moved |= advance(warp);
        return moved;
    }

    // Runs a warp to its next operation, or as far as it gets without the other warps.
    bool advance(int warp) {
        bool moved = false;
        do {
            for (int lane : shuffled(lanes(warp))) {
                Fiber& fiber = own.fibers[warp * WARP + lane];
                if (fiber.state != State::Ready || failed()) continue;
                own.current = &fiber;
                own.tsan.to_fiber(fiber.tsan);
                emulation_switch(&own.scheduler, fiber.stack_pointer);
                moved = true;
            }
        } while (!failed() && warp_operation(warp) && !own.side_by_side);
        return moved;
    }

    // Whether the lanes of a warp had arrived at an operation, which is then done.
    bool warp_operation(int warp) {
        const void* in[WARP] = {};
        void* out[WARP] = {};
        unsigned arrived = 0;
        Fiber* first = nullptr;
        for (int lane = 0; lane < lanes(warp); lane++) {
            Fiber& fiber = own.fibers[warp * WARP + lane];
            if (fiber.state != State::AtWarpOperation) continue;
            if (!first) first = &fiber;
            if (fiber.line != first->line || fiber.mask != first->mask)
                report("lanes of a warp are at different operations, in lines", first->line, fiber.line);
            arrived |= 1u << lane, in[lane] = fiber.in, out[lane] = fiber.out;
        }
        if (!first || failed()) return false;
        if (arrived != first->mask) {
            report("not all lanes of the mask reach the warp operation in line", first->line, int(arrived));
            return false;
        }
        own.tsan.collective(warp, [&] { first->collective(in, out); });
        for (int lane = 0; lane < WARP; lane++)
            if (arrived >> lane & 1) own.fibers[warp * WARP + lane].state = State::Ready;
        return true;
    }

    // Whether all threads are at one barrier, which they then leave; false at the end of the block.
    bool barrier_opens() {
        const Fiber* first = nullptr;
        bool all = true;
        for (const Fiber& fiber : own.fibers) {
            if (fiber.state == State::Done) all = false;
            else if (!first) first = &fiber;
            else if (fiber.line != first->line) report("threads are at different barriers", first->line, fiber.line);
        }
        if (!first || failed()) return false;
        if (!all) report("threads have ended that others wait for at the barrier in line", first->line, 0);
        for (Fiber& fiber : own.fibers) fiber.state = State::Ready;
        return !failed();
    }
};

// Runs `kernel` for every thread of the grid. An empty string, or what went wrong.
inline std::string run(dim3 grid, dim3 block_size, size_t shared_bytes, unsigned seed,
                       const std::function<void()>& kernel) {
    tsan::Unseen unseen;
    Launch own;
    own.grid = grid, own.block_size = block_size, own.kernel = &kernel;
    own.side_by_side = seed % 2 == 0, own.eager = seed / 2 % 2;
    own.random.seed(seed);
    launch = &own;
    Scheduler scheduler(own);
    const size_t blocks = size_t(grid.x) * grid.y * grid.z;
    std::vector<size_t> order(blocks);
    for (size_t i = 0; i < blocks; i++) order[i] = i;
    std::shuffle(order.begin(), order.end(), own.random);
    for (size_t i : order) {
        own.shared.reset(new unsigned char[shared_bytes]);
        std::memset(own.shared.get(), 0xff, shared_bytes); // NaN in every floating type
        scheduler.block(dim3(i % grid.x, i / grid.x % grid.y, i / (size_t(grid.x) * grid.y)));
        if (scheduler.failed()) break;
    }
    launch = nullptr;
    return own.error;
}

} // namespace emulation
