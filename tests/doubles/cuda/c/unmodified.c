/* A program for CUDA, with nothing of the double in it: it is compiled against the genuine headers of CUDA 12
 * or 13, as C and as C++. Two devices, driven by one thread, pass a buffer around; then a graph does it. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                                                                    \
  do {                                                                                                 \
    cudaError_t error = (call);                                                                        \
    if (error != cudaSuccess) {                                                                        \
      fprintf(stderr, "line %d: %s: %s\n", __LINE__, cudaGetErrorName(error), cudaGetErrorString(error)); \
      exit(1);                                                                                         \
    }                                                                                                  \
  } while (0)

#define EXPECT(condition)                                               \
  do {                                                                  \
    if (!(condition)) {                                                 \
      fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);   \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

#define N 1000

static void CUDART_CB increment(void* data) {
  int i, *numbers = (int*)data;
  for (i = 0; i < N; i++) numbers[i]++;
}

static void properties(void) {
  /* What follows the structure must stay as it is: its size depends on the version of the headers. */
  struct {
    struct cudaDeviceProp prop;
    unsigned char guard[256];
  } both;
  struct {
    struct cudaPointerAttributes attributes;
    unsigned char guard[64];
  } pointer;
  int count, device, value, runtime, driver;
  size_t i;
  char bus[16];
  void* memory;

  CHECK(cudaGetDeviceCount(&count));
  EXPECT(count == 2);
  for (device = 0; device < count; device++) {
    memset(&both, 0xa5, sizeof both);
    CHECK(cudaGetDeviceProperties(&both.prop, device));
    for (i = 0; i < sizeof both.guard; i++) EXPECT(both.guard[i] == 0xa5);
    EXPECT(strlen(both.prop.name) > 0 && both.prop.major == 9 && both.prop.minor == 0);
    EXPECT(both.prop.totalGlobalMem == (size_t)16 << 30);
    EXPECT(both.prop.warpSize == 32 && both.prop.maxThreadsPerBlock == 1024);
    EXPECT(both.prop.multiProcessorCount == 132 && both.prop.pciBusID == device + 1);
    EXPECT(both.prop.unifiedAddressing == 1 && both.prop.canMapHostMemory == 1 && both.prop.integrated == 0);
    EXPECT(both.prop.maxThreadsPerMultiProcessor == 2048 && both.prop.l2CacheSize == 50 << 20);
    EXPECT(both.prop.managedMemory == 1 && both.prop.asyncEngineCount == 3);
    EXPECT(both.prop.sharedMemPerMultiprocessor == 228 << 10);
    EXPECT(both.prop.sharedMemPerBlockOptin == 227 << 10);
    EXPECT(both.prop.hostRegisterSupported == 1 && both.prop.streamPrioritiesSupported == 1);
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, device));
    EXPECT(value == 9);
    CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
    EXPECT(strlen(bus) == 12);
  }
  CHECK(cudaRuntimeGetVersion(&runtime));
  CHECK(cudaDriverGetVersion(&driver));
  EXPECT(runtime >= 12000 && driver >= runtime);

  CHECK(cudaSetDevice(1));
  CHECK(cudaMalloc(&memory, 16));
  memset(&pointer, 0xa5, sizeof pointer);
  CHECK(cudaPointerGetAttributes(&pointer.attributes, memory));
  EXPECT(pointer.attributes.type == cudaMemoryTypeDevice && pointer.attributes.device == 1);
  EXPECT(pointer.attributes.devicePointer == memory);
  for (i = 0; i < sizeof pointer.guard; i++) EXPECT(pointer.guard[i] == 0xa5);
  CHECK(cudaFree(memory));
}

static void pass_around(void) {
  int *host, *memory[2], device, round, i;
  float time;
  cudaStream_t stream[2];
  cudaEvent_t done[2], begin, end;

  CHECK(cudaHostAlloc((void**)&host, N * sizeof *host, cudaHostAllocDefault));
  for (i = 0; i < N; i++) host[i] = i;
  for (device = 0; device < 2; device++) {
    CHECK(cudaSetDevice(device));
    CHECK(cudaMalloc((void**)&memory[device], N * sizeof *host));
    CHECK(cudaStreamCreateWithFlags(&stream[device], cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&done[device], cudaEventDisableTiming));
  }
  CHECK(cudaSetDevice(0));
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  CHECK(cudaEventRecord(begin, stream[0]));
  CHECK(cudaMemcpyAsync(memory[0], host, N * sizeof *host, cudaMemcpyHostToDevice, stream[0]));
  for (round = 0; round < 10; round++) {
    int from = round % 2, to = 1 - from;
    CHECK(cudaSetDevice(from));
    CHECK(cudaLaunchHostFunc(stream[from], increment, memory[from]));
    CHECK(cudaEventRecord(done[from], stream[from]));
    CHECK(cudaSetDevice(to));
    CHECK(cudaStreamWaitEvent(stream[to], done[from], 0));
    CHECK(cudaMemcpyPeerAsync(memory[to], to, memory[from], from, N * sizeof *host, stream[to]));
  }
  CHECK(cudaSetDevice(0));
  CHECK(cudaMemcpyAsync(host, memory[0], N * sizeof *host, cudaMemcpyDeviceToHost, stream[0]));
  CHECK(cudaEventRecord(end, stream[0]));
  CHECK(cudaEventSynchronize(end));
  CHECK(cudaEventElapsedTime(&time, begin, end));
  EXPECT(time > 0);
  for (i = 0; i < N; i++) EXPECT(host[i] == i + 10);
  EXPECT(cudaMemcpy(memory[0], host, N * sizeof *host + 1, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  EXPECT(cudaGetLastError() == cudaErrorInvalidValue && cudaPeekAtLastError() == cudaSuccess);
  for (device = 0; device < 2; device++) {
    CHECK(cudaSetDevice(device));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(memory[device]));
    CHECK(cudaStreamDestroy(stream[device]));
    CHECK(cudaEventDestroy(done[device]));
  }
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaFreeHost(host));
}

static void graph(void) {
  static int numbers[N];
  enum cudaStreamCaptureStatus status;
  unsigned long long id = 0;
  int launch;
  cudaStream_t stream;
  cudaGraph_t captured;
  cudaGraphExec_t executable;

  CHECK(cudaSetDevice(0));
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaLaunchHostFunc(stream, increment, numbers));
#if CUDART_VERSION >= 13000
  CHECK(cudaStreamGetCaptureInfo(stream, &status, &id, NULL, NULL, NULL, NULL));
#else
  CHECK(cudaStreamGetCaptureInfo(stream, &status, &id, NULL, NULL, NULL));
#endif
  EXPECT(status == cudaStreamCaptureStatusActive && id != 0);
  CHECK(cudaStreamEndCapture(stream, &captured));
  CHECK(cudaGraphInstantiate(&executable, captured, 0));
  CHECK(cudaGraphDestroy(captured));
  for (launch = 0; launch < 5; launch++) CHECK(cudaGraphLaunch(executable, stream));
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(numbers[0] == 5 && numbers[N - 1] == 5);
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaStreamDestroy(stream));
}

int main(void) {
  properties();
  pass_around();
  graph();
  puts("ok");
  return 0;
}
