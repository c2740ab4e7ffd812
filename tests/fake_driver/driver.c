/* The calls of NVIDIA's driver that this program makes itself, for tests on machines without a GPU: one card with 24 GiB, of
   which 20 are free, and a memory pool with 6000 bytes, of which 4000 are used. */
#include <stdint.h>
#include <string.h>

static uint64_t high = 5000, threshold = 0;
static int current = 0, retained = 0;

int cuInit(unsigned flags) { return flags != 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40; return index == 0 ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Card of a test", length); return device != 40; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return device != 40; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? 8 : which == 76 ? 6 : -1;
    return device != 40;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &current; return device != 40; }
int cuDevicePrimaryCtxRelease_v2(int device) { return --retained < 0 || device != 40; }
int cuCtxPushCurrent_v2(void *context) { current++; return context != &current; }
int cuCtxPopCurrent_v2(void **context) { *context = &current; return --current < 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = (size_t)20 << 30;
    *total = (size_t)24 << 30;
    return current != 1 || retained != 1;
}
int cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = &high; return device != 40; }
int cuMemPoolGetAttribute(void *pool, int which, void *value) {
    uint64_t numbers[9] = {0, 0, 0, 0, threshold, 6000, 6000, 4000, high};
    memcpy(value, &numbers[which], 8);
    return pool != &high;
}
int cuMemPoolSetAttribute(void *pool, int which, void *value) {
    uint64_t number;
    memcpy(&number, value, 8);
    if (which == 8 && number == 0) { high = 4000; return pool != &high; }
    if (which == 4) { threshold = number; return pool != &high; }
    return 1;
}
