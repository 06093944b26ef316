/* A CUDA runtime without a card: it hands out addresses that nobody touches, and launches nothing.

Loaded before torch (LD_PRELOAD), it takes the place of those functions of libcudart that torch calls on the way to its
caching allocator: how many devices there are, how large they are, and what cudaMalloc and cuMemCreate still have to
give of CARD_BYTES. All else that torch calls succeeds and does nothing. Addresses only ever grow, so that two runs are
the same; with CARD_SCATTERS they come in any order, as a driver's do. torch also opens the driver (libcuda.so.1) and,
for expandable segments, the library that watches over cards (libnvidia-ml.so.1): links of these names lead here. Needs
gcc and the headers that come with a CUDA build of torch. */

#include <stdlib.h>
#include <string.h>
#include <vector_types.h>
#include "driver_types.h"

#define MIB (1ull << 20)
#define RECORDS (1 << 20)
#define SUCCEEDS(name) int name(void) { return 0; }

typedef unsigned long long address;

static size_t used;
static address next = 0x700000000000ull;

static struct { address start; size_t size; } records[RECORDS]; /* what is handed out: pieces of memory and handles */
static int recorded = 1; /* a handle is an index, and 0 is none */

/* Read when it is asked for: a process that has loaded this becomes one with a card of another size. */
static size_t total(void) {
    const char *bytes = getenv("CARD_BYTES");
    return bytes ? strtoull(bytes, 0, 10) : 80ull << 30;
}

/* Addresses are 2 MiB apart, as the driver's pages are, with a gap in which a wrong merge would show. */
static address reserve(size_t size) {
    static address count;
    address start = next;
    if (getenv("CARD_SCATTERS")) return next + (count++ * 2531 % 4096 << 33); /* odd: 4096 different ones */
    next += (size + 3 * MIB) / (2 * MIB) * (2 * MIB) + 2 * MIB;
    return start;
}

static int take(address start, size_t size) {
    if (used + size > total()) return 0;
    if (recorded == RECORDS) abort(); /* to say that the card is full would be a wrong verdict */
    used += size;
    records[recorded].start = start;
    records[recorded].size = size;
    return recorded++;
}

static void give_back(int index) {
    used -= records[index].size;
    records[index].size = 0;
    while (recorded > 1 && !records[recorded - 1].size) recorded--; /* an empty card begins anew */
}

/* The card */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
    memset(card, 0, sizeof *card);
    strcpy(card->name, "no card");
    card->totalGlobalMem = total();
    card->major = 8; /* an Ampere: the first that has everything torch asks for here */
    card->multiProcessorCount = 108;
    card->warpSize = 32;
    card->maxThreadsPerMultiProcessor = 2048;
    card->maxThreadsPerBlock = card->maxThreadsDim[0] = 1024;
    card->maxGridSize[0] = 2147483647;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all) { *left = (*all = total()) - used; return cudaSuccess; }

/* Memory */

cudaError_t cudaMalloc(void **pointer, size_t size) {
    address start = reserve(size);
    if (!take(start, size)) return cudaErrorMemoryAllocation;
    *pointer = (void *)start;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    for (int index = recorded; --index;)
        if (records[index].start == (address)pointer && records[index].size) { give_back(index); break; }
    return cudaSuccess;
}

/* Where numbers from the card are read: they are all 1, as nothing is copied, and batch norm divides by one of them. */
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    *pointer = calloc(1, size);
    *(char *)*pointer = 1;
    return cudaSuccess;
}

/* What is not on the card is memory of the machine that the card can read. */
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeHost;
    for (int index = recorded; --index;)
        if ((address)pointer - records[index].start < records[index].size) attributes->type = cudaMemoryTypeDevice;
    return cudaSuccess;
}

/* Virtual memory, for expandable segments: addresses are free, handles are what the card runs out of. */

static int cuMemAddressReserve(address *start, size_t size, size_t alignment, address wish, address flags) {
    *start = reserve(size);
    return 0;
}

static int cuMemCreate(address *handle, size_t size, void *properties, address flags) {
    *handle = take(0, size);
    return *handle ? 0 : 2; /* CUDA_ERROR_OUT_OF_MEMORY */
}

static int cuMemRelease(address handle) { give_back(handle); return 0; }

static SUCCEEDS(succeed)

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, address flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *function = !strcmp(name, "cuMemAddressReserve") ? (void *)cuMemAddressReserve
              : !strcmp(name, "cuMemCreate")         ? (void *)cuMemCreate
              : !strcmp(name, "cuMemRelease")        ? (void *)cuMemRelease
                                                     : (void *)succeed;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* What a step asks about its kernels and streams */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *kernel, const void *function) {
    memset(kernel, 0, sizeof *kernel);
    kernel->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                   size_t shared, unsigned flags) {
    *blocks = 2;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) { *value = 0; return 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return 0; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return 0; }

/* Each stream is another one, as blocks of one never serve another */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    static char streams[4096];
    static int made;
    *stream = (cudaStream_t)&streams[made++ % sizeof streams];
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *is) { *is = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *is) { *is = 0; return 0; }

/* The rest */

SUCCEEDS(cudaDeviceGetDefaultMemPool)
SUCCEEDS(cudaDeviceGetPCIBusId)
SUCCEEDS(cudaDeviceSynchronize)
SUCCEEDS(cudaEventCreateWithFlags)
SUCCEEDS(cudaEventDestroy)
SUCCEEDS(cudaEventQuery)
SUCCEEDS(cudaEventElapsedTime)
SUCCEEDS(cudaEventRecord)
SUCCEEDS(cudaEventRecordWithFlags)
SUCCEEDS(cudaEventSynchronize)
SUCCEEDS(cudaFuncSetAttribute)
SUCCEEDS(cudaGetLastError)
SUCCEEDS(cudaLaunchKernel)
SUCCEEDS(cudaMemcpy)
SUCCEEDS(cudaMemcpyAsync)
SUCCEEDS(cudaMemsetAsync)
SUCCEEDS(cudaPeekAtLastError)
SUCCEEDS(cudaSetDevice)
SUCCEEDS(cudaStreamQuery)
SUCCEEDS(cudaStreamSynchronize)
SUCCEEDS(cudaStreamWaitEvent)
SUCCEEDS(cudaThreadExchangeStreamCaptureMode)
SUCCEEDS(__cudaPopCallConfiguration)
SUCCEEDS(__cudaPushCallConfiguration)

/* libcuda.so.1 */

SUCCEEDS(cuInit)

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active) {
    *flags = 0;
    *is_active = 1;
    return 0;
}

/* libnvidia-ml.so.1 */

int nvmlDeviceGetComputeRunningProcesses(void *card, unsigned *count, void *processes) { *count = 0; return 0; }

SUCCEEDS(nvmlDeviceGetGpuFabricInfoV)
SUCCEEDS(nvmlDeviceGetHandleByPciBusId_v2)
SUCCEEDS(nvmlDeviceGetNvLinkRemoteDeviceType)
SUCCEEDS(nvmlDeviceGetNvLinkRemotePciInfo_v2)
SUCCEEDS(nvmlInit_v2)
SUCCEEDS(nvmlSystemGetCudaDriverVersion_v2)
