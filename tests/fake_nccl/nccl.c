/* A library with the calls of NCCL that the program makes. Its ranks are threads of one process, and the memory of
   a GPU is the host's. Sending copies; receiving waits. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };

typedef struct { char name[128]; } ncclUniqueId;

typedef struct message {
    struct message *next;
    size_t count;
    float numbers[];
} message;

typedef struct {
    int rank, size;
} group;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static message *waiting[MOST][MOST];
static int joined;

int ncclGetVersion(int *version) { *version = 22000; return 0; }

const char *ncclGetErrorString(int status) { return status == 4 ? "invalid argument" : "another error"; }

int ncclGetUniqueId(ncclUniqueId *id) { memset(id->name, 'n', 128); return 0; }

int ncclCommInitRank(void **handle, int size, ncclUniqueId id, int rank) {
    for (int i = 0; i < 128; i++)
        if (id.name[i] != 'n') return 4;
    if (rank < 0 || rank >= size || size > MOST) return 4;
    group *made = malloc(sizeof *made);
    *made = (group){rank, size};
    *handle = made;
    pthread_mutex_lock(&lock);
    joined++;
    pthread_cond_broadcast(&changed);
    while (joined % size) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

int ncclSend(const void *numbers, size_t count, int type, int to, void *handle, void *stream) {
    group *own = handle;
    if (type != 7 || to == own->rank || to < 0 || to >= own->size || stream != (void *)1) return 4;
    message *sent = malloc(sizeof *sent + count * sizeof(float));
    sent->next = NULL;
    sent->count = count;
    memcpy(sent->numbers, numbers, count * sizeof(float));
    pthread_mutex_lock(&lock);
    message **last = &waiting[own->rank][to];
    while (*last) last = &(*last)->next;
    *last = sent;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

int ncclRecv(void *numbers, size_t count, int type, int from, void *handle, void *stream) {
    group *own = handle;
    if (type != 7 || from == own->rank || from < 0 || from >= own->size || stream != (void *)1) return 4;
    pthread_mutex_lock(&lock);
    message **first = &waiting[from][own->rank];
    while (!*first) pthread_cond_wait(&changed, &lock);
    message *received = *first;
    *first = received->next;
    pthread_mutex_unlock(&lock);
    int status = received->count == count ? 0 : 4;
    if (!status) memcpy(numbers, received->numbers, count * sizeof(float));
    free(received);
    return status;
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, void *handle, void *stream) {
    group *own = handle;
    if (own->rank != root) return ncclRecv(to, count, type, root, handle, stream);
    int status = 0;
    for (int rank = 0; rank < own->size && !status; rank++)
        if (rank != root) status = ncclSend(from, count, type, rank, handle, stream);
    return status;
}

int ncclCommGetAsyncError(void *handle, int *status) { (void)handle; *status = 0; return 0; }

int ncclCommAbort(void *handle) { free(handle); return 0; }
