/* A plain NCCL program that goes on when one of its processes is killed.
 *
 * It starts one process per rank. They sum up a few numbers over and over, and one of them prints a line per
 * second. When a rank is killed, the others are told so by ncclCommGetAsyncError or by the call that they are
 * in; they print what they were told, shrink the communicator and carry on. That needs an NCCL that notices:
 * one that does not leaves them waiting in the all-reduce.
 *
 *   nccl_unmodified [--ranks N] [--seconds S] [--kill RANK]
 *
 * --kill: RANK is killed after a third of the time. Or kill one yourself; each says which process it is.
 *
 * With CUDA (-DWITH_CUDA, which needs cuda_runtime.h and nccl.h) the numbers are in device memory, one device
 * per rank. Else they are in host memory, and what the program uses of nccl.h is declared below.
 */
#define _DEFAULT_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_CUDA
#include <cuda_runtime.h>
#include <nccl.h>
#else
typedef struct CUstream_st* cudaStream_t;
typedef struct ncclComm* ncclComm_t;
typedef struct ncclConfig ncclConfig_t;
typedef struct {
  char internal[128];
} ncclUniqueId;
typedef enum { ncclSuccess = 0, ncclInProgress = 7 } ncclResult_t;
typedef enum { ncclInt64 = 4 } ncclDataType_t;
typedef enum { ncclSum = 0, ncclMaxRedOp = INT_MAX } ncclRedOp_t;
#define NCCL_SHRINK_ABORT 1

ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommShrink(ncclComm_t comm, int* excluded, int count, ncclComm_t* rest, ncclConfig_t* config,
                            int flags);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream);
const char* ncclGetErrorString(ncclResult_t result);
const char* ncclGetLastError(ncclComm_t comm);
#endif

/* Of the COUNT numbers that are summed up, the first is how many ranks think that it is time to stop. */
enum { MAX_RANKS = 16, COUNT = 1024, PAUSE_MS = 10, PATIENCE_SECONDS = 30 };

/* What the processes know of each other, in a file that all of them have open. */
typedef struct {
  ncclUniqueId id;
  int has_id;
  int lost[MAX_RANKS]; /* Set by the process that started the ranks. */
} board;

/* The communicator and which of the original ranks are in it; its own ranks are their places in the list. */
typedef struct {
  ncclComm_t comm;
  int members[MAX_RANKS];
  int count;
} team;

static board* shared;
static int me;
static cudaStream_t stream;
static long long *to_send, *received;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void nap(int ms) {
  struct timespec t = {0, ms * 1000000L};
  nanosleep(&t, NULL);
}

static void fail(const char* what, const char* why) {
  fprintf(stderr, "rank %d: %s: %s\n", me, what, why);
  exit(1);
}

#define NCCL(call)                                                                         \
  do {                                                                                     \
    ncclResult_t result_ = (call);                                                         \
    if (result_ != ncclSuccess) {                                                          \
      fprintf(stderr, "%s: %s\n", ncclGetErrorString(result_), ncclGetLastError(NULL));     \
      fail(#call, "failed");                                                               \
    }                                                                                      \
  } while (0)

#ifdef WITH_CUDA
#define CUDA(call)                                                                         \
  do {                                                                                     \
    cudaError_t error_ = (call);                                                           \
    if (error_ != cudaSuccess) fail(#call, cudaGetErrorString(error_));                    \
  } while (0)

static void get_memory(void) {
  int devices = 0;
  CUDA(cudaGetDeviceCount(&devices));
  CUDA(cudaSetDevice(me % devices));
  CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUDA(cudaMalloc((void**)&to_send, COUNT * sizeof *to_send));
  CUDA(cudaMalloc((void**)&received, COUNT * sizeof *received));
}

static void copy(void* to, const void* from) {
  CUDA(cudaMemcpyAsync(to, from, COUNT * sizeof *to_send, cudaMemcpyDefault, stream));
  CUDA(cudaStreamSynchronize(stream));
}

static int is_done(void) {
  cudaError_t state = cudaStreamQuery(stream);
  if (state != cudaErrorNotReady) CUDA(state);
  return state == cudaSuccess;
}
#else
static void get_memory(void) {
  to_send = calloc(COUNT, sizeof *to_send);
  received = calloc(COUNT, sizeof *received);
  if (to_send == NULL || received == NULL) fail("calloc", "no memory");
}

static void copy(void* to, const void* from) { memcpy(to, from, COUNT * sizeof *to_send); }

/* Without streams a call returns when its operation is done. */
static int is_done(void) { return 1; }
#endif

/* Waits for what is on the stream as long as the communicator is in order. */
static ncclResult_t finish(ncclComm_t comm) {
  for (;;) {
    /* In this order: a communicator that was given up leaves the stream idle, with an error to tell. */
    int done = is_done();
    ncclResult_t state = ncclSuccess;
    NCCL(ncclCommGetAsyncError(comm, &state));
    if (state != ncclSuccess && state != ncclInProgress) return state;
    if (done && state == ncclSuccess) return ncclSuccess;
    nap(1);
  }
}

/* One step: everybody contributes its original rank. `*over` comes back as how many ranks said so. */
static ncclResult_t step(const team* t, long long* over) {
  long long numbers[COUNT], expected = 0;
  for (int i = 0; i < t->count; ++i) expected += t->members[i];
  for (int i = 0; i < COUNT; ++i) numbers[i] = me;
  numbers[0] = *over;
  copy(to_send, numbers);
  ncclResult_t result = ncclAllReduce(to_send, received, COUNT, ncclInt64, ncclSum, t->comm, stream);
  if (result == ncclSuccess || result == ncclInProgress) result = finish(t->comm);
  if (result != ncclSuccess) return result;
  copy(numbers, received);
  for (int i = 1; i < COUNT; ++i) {
    if (numbers[i] != expected) fail("ncclAllReduce", "wrong sum");
  }
  *over = numbers[0];
  return ncclSuccess;
}

static void list(const team* t) {
  printf("rank %d: goes on with %d ranks:", me, t->count);
  for (int i = 0; i < t->count; ++i) printf(" %d", t->members[i]);
  printf("\n");
}

/* Takes those out whose processes have ended. */
static void shrink(team* t) {
  team rest = {NULL, {0}, 0};
  int excluded[MAX_RANKS], lost = 0;
  double until = seconds() + PATIENCE_SECONDS;
  do {
    nap(1);
    rest.count = lost = 0;
    for (int i = 0; i < t->count; ++i) {
      if (__atomic_load_n(&shared->lost[t->members[i]], __ATOMIC_ACQUIRE)) {
        excluded[lost++] = i;
      } else {
        rest.members[rest.count++] = t->members[i];
      }
    }
    if (seconds() > until) fail("an error", "but every process is there");
  } while (lost == 0);
  NCCL(ncclCommShrink(t->comm, excluded, lost, &rest.comm, NULL, NCCL_SHRINK_ABORT));
  NCCL(ncclCommAbort(t->comm));
  *t = rest;
  list(t);
}

static void be_rank(int nranks, double length) {
  team t = {NULL, {0}, nranks};
  long done = 0, told = 0;
  long long over = 0;
  for (int i = 0; i < nranks; ++i) t.members[i] = i;
  get_memory();
  if (me == 0) {
    NCCL(ncclGetUniqueId(&shared->id));
    __atomic_store_n(&shared->has_id, 1, __ATOMIC_RELEASE);
  }
  double until = seconds() + PATIENCE_SECONDS;
  while (!__atomic_load_n(&shared->has_id, __ATOMIC_ACQUIRE)) {
    if (seconds() > until) fail("rank 0", "left no unique id");
    nap(1);
  }
  NCCL(ncclCommInitRank(&t.comm, nranks, shared->id, me));
  printf("rank %d: process %ld\n", me, (long)getpid());
  double begin = seconds(), last = begin;
  while (over == 0) {
    over = seconds() - begin > length;
    ncclResult_t result = step(&t, &over);
    double now = seconds();
    if (result == ncclSuccess) {
      ++done;
      last = now;
      if (me == t.members[0] && (long)(now - begin) > told) {
        told = (long)(now - begin);
        printf("%ld s: %d ranks, %ld all-reduces, all sums right\n", told, t.count, done);
      }
    } else {
      printf("rank %d: %.0f ms after the last all-reduce: %s\nrank %d: %s\n", me, 1e3 * (now - last),
             ncclGetErrorString(result), me, ncclGetLastError(t.comm));
      shrink(&t);
      over = 0;
    }
    nap(PAUSE_MS);
  }
  NCCL(ncclCommDestroy(t.comm));
}

/* The process that starts the ranks. */

static pid_t pids[MAX_RANKS];

static void end_all(int signum) {
  for (int r = 0; r < MAX_RANKS; ++r) {
    if (pids[r] > 0) kill(pids[r], SIGKILL);
  }
  _exit(128 + signum);
}

static pid_t start(int rank, int nranks, const char* length, int file) {
  char numbers[3][16];
  pid_t parent = getpid(), pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  snprintf(numbers[0], sizeof numbers[0], "%d", rank);
  snprintf(numbers[1], sizeof numbers[1], "%d", nranks);
  snprintf(numbers[2], sizeof numbers[2], "%d", file);
  execl("/proc/self/exe", "nccl_unmodified", "rank", numbers[0], numbers[1], length, numbers[2], (char*)NULL);
  _exit(127);
}

/* Waits for all ranks, and tells those that are left about the ones that were killed. */
static int supervise(int nranks, int victim, double kill_at) {
  int left = nranks, good = 0, bad = 0, status = 0;
  while (left > 0) {
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (victim >= 0 && seconds() > kill_at) {
      kill(pids[victim], SIGKILL);
      victim = -1;
    }
    if (pid <= 0) {
      nap(1);
      continue;
    }
    int rank = 0;
    while (rank < nranks - 1 && pids[rank] != pid) ++rank;
    pids[rank] = 0;
    --left;
    if (WIFSIGNALED(status)) {
      printf("rank %d: killed by signal %d\n", rank, WTERMSIG(status));
      __atomic_store_n(&shared->lost[rank], 1, __ATOMIC_RELEASE);
    } else if (WEXITSTATUS(status) == 0) {
      ++good;
    } else {
      ++bad;
    }
  }
  printf("%d of %d ranks came to the end\n", good, nranks);
  return bad > 0 || good == 0;
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  int as_rank = argc == 6 && strcmp(argv[1], "rank") == 0;
  int nranks = 4, victim = -1, file = -1;
  const char* length = "9";
  char name[] = "/tmp/nccl_unmodified.XXXXXX";
  if (as_rank) {
    me = atoi(argv[2]);
    nranks = atoi(argv[3]);
    length = argv[4];
    file = atoi(argv[5]);
  }
  for (int i = 1; !as_rank && i < argc; i += 2) {
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(argv[i], "--ranks") == 0) {
      nranks = atoi(value);
    } else if (strcmp(argv[i], "--seconds") == 0) {
      length = value;
    } else if (strcmp(argv[i], "--kill") == 0) {
      victim = atoi(value);
    } else {
      nranks = 0;
    }
  }
  if (nranks < 1 || nranks > MAX_RANKS || victim >= nranks || atof(length) <= 0 || me < 0 || me >= nranks) {
    fprintf(stderr, "usage: %s [--ranks 1..%d] [--seconds S] [--kill RANK]\n", argv[0], MAX_RANKS);
    return 2;
  }
  if (!as_rank && ((file = mkstemp(name)) < 0 || unlink(name) != 0 || ftruncate(file, sizeof *shared) != 0)) {
    perror(name);
    return 1;
  }
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shared == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  if (as_rank) {
    be_rank(nranks, atof(length));
    return 0;
  }
  signal(SIGALRM, end_all);
  signal(SIGTERM, end_all);
  signal(SIGINT, end_all);
  alarm((unsigned)atof(length) + 2 * PATIENCE_SECONDS);
  double kill_at = seconds() + atof(length) / 3;
  for (int r = 0; r < nranks; ++r) {
    pids[r] = start(r, nranks, length, file);
    if (pids[r] < 0) {
      perror("fork");
      end_all(SIGALRM);
    }
  }
  return supervise(nranks, victim, kill_at);
}
