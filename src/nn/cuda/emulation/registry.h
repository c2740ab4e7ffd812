// The kernels by name, with what is needed to call them through pointers to their arguments.
#pragma once
#include <map>
#include <type_traits>
#include <utility>
#include "cuda.h"

namespace emulation {

struct Entry {
    std::string kinds; // one letter per parameter, as the Rust side names them
    unsigned threads;  // the largest block
    std::function<void(void**)> call;
};
inline std::map<std::string, Entry>& entries() {
    static std::map<std::string, Entry> all;
    return all;
}

template <class T> constexpr char kind() {
    if (std::is_pointer<T>::value) return 'p';
    if (std::is_same<T, int>::value) return 'i';
    if (std::is_same<T, float>::value) return 'f';
    return '?';
}

struct Registration {
    template <class... Parameters>
    Registration(const char* name, unsigned threads, void (*kernel)(Parameters...)) {
        entries()[name] = {{kind<Parameters>()...}, threads, [kernel](void** arguments) {
                               call(kernel, arguments, std::index_sequence_for<Parameters...>{});
                           }};
    }

  private:
    template <class... Parameters, size_t... I>
    static void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
        kernel(*static_cast<Parameters*>(arguments[I])...);
    }
};

inline std::string launch_by_name(const char* name, dim3 grid, dim3 block, size_t shared_bytes, unsigned seed,
                                  const std::string& kinds, void** arguments) {
    const auto found = entries().find(name);
    if (found == entries().end()) return "there is no kernel of this name";
    const Entry& entry = found->second;
    if (kinds != entry.kinds) return "the parameters are `" + entry.kinds + "`, the arguments `" + kinds + "`";
    if (block.x > entry.threads) return "the block has more threads than the kernel is compiled for";
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return "an empty grid";
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "the grid is too large";
    if (shared_bytes > 99 << 10) return "more shared memory than every card since Ampere has";
    return run(grid, block, shared_bytes, seed, [&] { entry.call(arguments); });
}

} // namespace emulation
