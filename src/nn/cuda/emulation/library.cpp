// All kernels as a shared library for the tests: launched by name, with an array of pointers to the arguments as
// `cuLaunchKernel` takes it, and the kinds of the arguments, which are checked against the kernel's signature.
#include "registry.h"
#include "../kernels.cu"

extern "C" __attribute__((visibility("default"))) int
emulation_launch(const char* kernel, const unsigned* grid, unsigned block, unsigned shared_bytes, unsigned seed,
                 const char* kinds, void** arguments, char* error, size_t capacity) {
    const std::string message = emulation::launch_by_name(
        kernel, dim3(grid[0], grid[1], grid[2]), dim3(block), shared_bytes, seed, kinds, arguments);
    std::snprintf(error, capacity, "%s", message.c_str());
    return message.empty() ? 0 : 1;
}
