/* What a call costs more through the drop-in than without it: dropin DROP_IN NCCL [--batches N] [--calls N]
 *
 * NCCL is the double of tests/doubles/nccl. It is called directly and through the drop-in, which has the same
 * instance of it behind its functions, in turns and in one thread: first with operations that do nothing,
 * which shows the difference, then with operations that take a microsecond, which shows how much of one it
 * is. What is printed are medians over batches, and for the difference the median of the pairs' differences.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FLOAT32 = 7, SUM = 0, COUNT = 64, SEND = 0, ALL_REDUCE = 1, WARM_UP = 20 };

/* One way to NCCL, and a communicator of two ranks in this process that was made that way;
   only rank 0 is used. */
typedef struct {
  int (*init_all)(void** comms, int nranks, const int* devices);
  int (*abort)(void* comm);
  int (*send)(const void* buffer, size_t count, int type, int peer, void* comm, void* stream);
  int (*all_reduce)(const void* from, void* to, size_t count, int type, int op, void* comm, void* stream);
  const char* (*last_error)(void* comm);
  void* comm;
  void* other;
} nccl;

typedef struct {
  double direct, through, extra;
} figures;

static float data[COUNT], sums[COUNT];

static void fail(const char* what, const char* why) {
  fprintf(stderr, "dropin: %s: %s\n", what, why != NULL ? why : "not found");
  exit(1);
}

static void find(void* library, const char* name, void* function) {
  void* address = dlsym(library, name);
  if (address == NULL) fail(name, dlerror());
  memcpy(function, &address, sizeof address);
}

static void* open_library(const char* path) {
  /* Two libraries with the same functions: neither may see the other's. */
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (library == NULL) fail(path, dlerror());
  return library;
}

static void join(nccl* way, void* library) {
  const int devices[2] = {0, 1};
  void* comms[2];
  find(library, "ncclCommInitAll", &way->init_all);
  find(library, "ncclCommAbort", &way->abort);
  find(library, "ncclSend", &way->send);
  find(library, "ncclAllReduce", &way->all_reduce);
  find(library, "ncclGetLastError", &way->last_error);
  if (way->init_all(comms, 2, devices) != 0) fail("ncclCommInitAll", way->last_error(NULL));
  way->comm = comms[0];
  way->other = comms[1];
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* Nanoseconds per call. */
static double batch(const nccl* way, int what, int calls) {
  int bad = 0;
  double begin = now_ns();
  if (what == SEND) {
    for (int i = 0; i < calls; ++i) bad |= way->send(data, COUNT, FLOAT32, 1, way->comm, NULL);
  } else {
    for (int i = 0; i < calls; ++i) bad |= way->all_reduce(data, sums, COUNT, FLOAT32, SUM, way->comm, NULL);
  }
  double took = now_ns() - begin;
  if (bad != 0) fail(what == SEND ? "ncclSend" : "ncclAllReduce", way->last_error(way->comm));
  return took / calls;
}

static int by_size(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static double median(double* values, int n) {
  qsort(values, (size_t)n, sizeof *values, by_size);
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static figures measure(const nccl* direct, const nccl* through, int what, int batches, int calls) {
  double* values = malloc(3 * (size_t)batches * sizeof *values);
  if (values == NULL) fail("malloc", "no memory");
  double *without = values, *with = values + batches, *extra = values + 2 * batches;
  for (int b = -WARM_UP; b < batches; ++b) {
    /* Either goes first every other time. */
    double first = batch(b % 2 == 0 ? direct : through, what, calls);
    double second = batch(b % 2 == 0 ? through : direct, what, calls);
    if (b < 0) continue;
    without[b] = b % 2 == 0 ? first : second;
    with[b] = b % 2 == 0 ? second : first;
    extra[b] = with[b] - without[b];
  }
  figures f = {median(without, batches), median(with, batches), median(extra, batches)};
  free(values);
  return f;
}

static void print(const char* operation, const char* function, figures f) {
  printf("%-10s %-14s %10.1f %10.1f %+10.1f\n", operation, function, f.direct, f.through, f.extra);
}

/* A run does not move between processors. */
static void stay(void) {
  int here = sched_getcpu();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (here >= 0) CPU_SET(here, &set);
  if (here < 0 || sched_setaffinity(0, sizeof set, &set) != 0) {
    fprintf(stderr, "dropin: not bound to a processor\n");
  }
}

int main(int argc, char** argv) {
  int batches = 2001, calls = 1000;
  int (*script)(const char* text);
  nccl direct, through;
  for (int i = 3; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--batches") == 0) batches = atoi(argv[i + 1]);
    if (strcmp(argv[i], "--calls") == 0) calls = atoi(argv[i + 1]);
  }
  if (argc < 3 || batches < 1 || calls < 1) {
    fprintf(stderr, "usage: %s DROP_IN NCCL [--batches N] [--calls N]\n", argv[0]);
    return 2;
  }
  setenv("MW_BACKEND", "nccl", 1);
  setenv("MW_NCCL_LIB", argv[2], 1);
  setenv("MW_DOUBLE_NCCL", "null-ops", 1);
  setenv("MW_IFNAME", "lo", 0);
  setenv("NCCL_SOCKET_IFNAME", "lo", 0);

  void* library = open_library(argv[2]);
  find(library, "mwDoubleNcclScript", &script);
  join(&direct, library);
  join(&through, open_library(argv[1]));
  stay(); /* Now that the libraries have their threads. */

  printf("%-10s %-14s %10s %10s %10s  ns per call, medians of %d batches of %d\n", "operation", "function",
         "direct", "drop-in", "extra", batches, calls);
  figures send = measure(&direct, &through, SEND, batches, calls);
  print("none", "ncclSend", send);
  figures reduce = measure(&direct, &through, ALL_REDUCE, batches, calls);
  print("none", "ncclAllReduce", reduce);
  if (script("busy-ops:1000") != 0) fail("mwDoubleNcclScript", "refused");
  int fewer = calls > 10 ? calls / 10 : calls;
  figures long_send = measure(&direct, &through, SEND, batches, fewer);
  print("1 us", "ncclSend", long_send);
  figures long_reduce = measure(&direct, &through, ALL_REDUCE, batches, fewer);
  print("1 us", "ncclAllReduce", long_reduce);
  double share = 100 * long_send.extra / long_send.direct;
  double other = 100 * long_reduce.extra / long_reduce.direct;
  printf("drop-in: ncclSend %+.1f ns, ncclAllReduce %+.1f ns; on a 1 us operation %+.2f %%\n", send.extra,
         reduce.extra, share > other ? share : other);
  /* Nothing was sent really, so that there is nothing to wait for. */
  through.abort(through.comm);
  through.abort(through.other);
  direct.abort(direct.comm);
  direct.abort(direct.other);
  return 0;
}
