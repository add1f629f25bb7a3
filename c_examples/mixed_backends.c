/* One process in two worlds of different backends: device memory through NCCL, host memory without it.
 *
 * Process 0 takes requests from process 2 through the world "front", on host memory, and works on them
 * together with process 1 in the world "gpu", on device memory. Then process 1 is killed. That breaks "gpu"
 * and nothing else: process 0 learns it, and tells process 2 through "front", which goes on.
 *
 *      process 2 --- "front", host --- process 0 --- "gpu", nccl --- process 1
 *
 * The CUDA driver is looked for when the program runs, so that it compiles everywhere. Where there is no CUDA
 * device, or no NCCL, it says so and has nothing to show.
 */
#define _DEFAULT_SOURCE
#include <dlfcn.h>

#include "common.h"

enum { COUNT = 1000, REQUESTS = 20, VICTIM = 1, PATIENCE_MS = 30000 };

/* Of the shared words, the one that counts answers. */
enum { ANSWERS };

/* What process 0 answers when "gpu" is gone. */
enum { NO_GPU = -1 };

/* The few functions of the CUDA driver that are needed here. */
typedef struct {
  int (*init)(unsigned flags);
  int (*device_count)(int* count);
  int (*retain)(void** context, int device);
  int (*set_current)(void* context);
  int (*alloc)(uintptr_t* address, size_t size);
  int (*to_device)(uintptr_t to, const void* from, size_t size);
  int (*to_host)(void* to, uintptr_t from, size_t size);
  int (*synchronize)(void* stream);
} cuda_driver;

static cuda_driver cuda;

#define CUDA(call)                                                                            \
  do {                                                                                        \
    int cuda_result_ = (call);                                                                \
    if (cuda_result_ != 0) {                                                                  \
      fprintf(stderr, "%s:%d: %s gives CUDA error %d\n", __FILE__, __LINE__, #call, cuda_result_); \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

/* ISO C has no conversion between pointers to data and to functions; POSIX promises that this works. */
static int find(void* library, const char* name, void* function) {
  void* address = dlsym(library, name);
  memcpy(function, &address, sizeof address);
  return address != NULL;
}

/* Devices that there are; 0 without a driver. */
static int open_cuda(void) {
  int devices = 0;
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) return 0;
  if (!find(library, "cuInit", &cuda.init) || !find(library, "cuDeviceGetCount", &cuda.device_count) ||
      !find(library, "cuDevicePrimaryCtxRetain", &cuda.retain) ||
      !find(library, "cuCtxSetCurrent", &cuda.set_current) || !find(library, "cuMemAlloc_v2", &cuda.alloc) ||
      !find(library, "cuMemcpyHtoD_v2", &cuda.to_device) ||
      !find(library, "cuMemcpyDtoH_v2", &cuda.to_host) ||
      !find(library, "cuStreamSynchronize", &cuda.synchronize)) {
    return 0;
  }
  return cuda.init(0) == 0 && cuda.device_count(&devices) == 0 ? devices : 0;
}

/* Joins "gpu" with a device of its own where there are enough. */
static mwWorld_t join_gpu(int rank) {
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  mwWorld_t world;
  void* context;
  int devices = open_cuda();
  REQUIRE(devices > 0);
  /* NCCL wants to be asked before it lets two ranks share a device. */
  if (devices < 2) setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  config.backend = "nccl";
  config.device = rank % devices;
  CUDA(cuda.retain(&context, config.device));
  CUDA(cuda.set_current(context));
  MW_CHECK(mwWorldInit(&world, "gpu", 2, rank, &config));
  return world;
}

static mwWorld_t join_front(int rank) {
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  mwWorld_t world;
  config.backend = "host";
  MW_CHECK(mwWorldInit(&world, "front", 2, rank, &config));
  return world;
}

/* Sums up a buffer of device memory between the two processes of "gpu". */
static mwResult_t work(mwWorld_t gpu, uintptr_t buffer) {
  mwRequest_t request;
  mwResult_t result;
  MW_CHECK(mwGroupStart());
  /* A device pointer, and the device's default stream. */
  result = mwAllReduce((void*)buffer, (void*)buffer, COUNT, mwFloat32, mwSum, gpu, NULL);
  if (result != mwSuccess) {
    mwGroupEnd();
    return result;
  }
  result = mwGroupSubmit(&request);
  if (result != mwSuccess) return result;
  /* In place of waiting for the stream: this also ends when the world does. */
  result = mwRequestWait(request, PATIENCE_MS);
  MW_CHECK(mwRequestFree(request));
  return result;
}

static void between(void) {
  static float data[COUNT];
  uintptr_t buffer;
  int number = 0;
  mwWorld_t gpu = join_gpu(0), front = join_front(0);
  have_joined();
  CUDA(cuda.alloc(&buffer, sizeof data));
  while (number >= 0) {
    MW_CHECK(mwRecv(&number, 1, mwInt32, 1, front, NULL));
    if (number < 0) break;
    for (int i = 0; i < COUNT; ++i) data[i] = (float)number;
    CUDA(cuda.to_device(buffer, data, sizeof data));
    mwResult_t result = work(gpu, buffer);
    if (result == mwRemoteError) {
      printf("process 0: world \"gpu\" broke: %s\n", mwGetLastError(gpu));
      expect_failed_rank(gpu, 1);
      number = NO_GPU;
      MW_CHECK(mwSend(&number, 1, mwInt32, 1, front, NULL));
      break;
    }
    REQUIRE(result == mwSuccess);
    CUDA(cuda.to_host(data, buffer, sizeof data));
    for (int i = 1; i < COUNT; ++i) REQUIRE(data[i] == data[0]);
    number = (int)data[0];
    MW_CHECK(mwSend(&number, 1, mwInt32, 1, front, NULL));
  }
  REQUIRE(number == NO_GPU);
  MW_CHECK(mwWorldAbort(gpu));
  /* "front" never noticed. */
  MW_CHECK(mwBarrier(front, NULL));
  MW_CHECK(mwWorldDestroy(front));
}

static void helper(void) {
  static float data[COUNT];
  uintptr_t buffer;
  mwWorld_t gpu = join_gpu(1);
  have_joined();
  wait_until_joined(2);
  CUDA(cuda.alloc(&buffer, sizeof data));
  for (int done = 0; done < REQUESTS; ++done) {
    for (int i = 0; i < COUNT; ++i) data[i] = 100;
    CUDA(cuda.to_device(buffer, data, sizeof data));
    MW_CHECK(work(gpu, buffer));
  }
  /* Let the last answer get through, and process 0 into the next request. */
  while (shared_words[ANSWERS] < REQUESTS) sleep_ms(1);
  sleep_ms(20);
  raise(SIGKILL);
}

static void client(void) {
  mwWorld_t front = join_front(1);
  int answer = 0, answers = 0;
  while (answer != NO_GPU) {
    int number = answers;
    MW_CHECK(mwSend(&number, 1, mwInt32, 0, front, NULL));
    MW_CHECK(mwRecv(&answer, 1, mwInt32, 0, front, NULL));
    if (answer == NO_GPU) break;
    REQUIRE(answer == answers + 100);
    shared_words[ANSWERS] = (uint64_t)++answers;
  }
  printf("process 2: %d answers, and then was told that \"gpu\" is gone\n", answers);
  REQUIRE(answers == REQUESTS);
  MW_CHECK(mwBarrier(front, NULL));
  MW_CHECK(mwWorldDestroy(front));
}

static void process(int number) {
  if (number == 0) between();
  if (number == VICTIM) helper();
  if (number == 2) client();
}

/* Asks whether a world of the nccl backend can be, in a process of its own: neither CUDA nor this library can
 * be used by a process that is going to fork. */
static int can_run(void) {
  int status = 0;
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    mwConfig_t config = MW_CONFIG_INITIALIZER;
    mwWorld_t world;
    mwUniqueId id;
    if (open_cuda() == 0) {
      printf("mixed_backends: skipped: no CUDA device\n");
      exit(77);
    }
    config.backend = "nccl";
    config.device = 0;
    MW_CHECK(mwGetUniqueId(&id));
    if (mwWorldInitRank(&world, 1, id, 0, &config) == mwSystemError) {
      printf("mixed_backends: skipped: %s\n", mwGetLastError(NULL));
      exit(77);
    }
    exit(0);
  }
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 77);
}

int main(void) {
  setenv("MW_IFNAME", "lo", 0);
  if (!can_run()) return 0;
  return run_ranks("mixed_backends", 3, process, VICTIM);
}
