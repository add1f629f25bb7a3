/* A program that brings a CUDA runtime: its own, of a few functions, on which a stream is a thread.
 * Operations are asynchronous then and keep the order of their streams. All ranks are driven by one thread,
 * which would wait for itself if an operation waited for the others. */
#undef WITH_NCCL_H /* It comes with CUDA's header, whose runtime this is not. */
#include <pthread.h>

#include "ranks.h"

/* The runtime. */

enum { DEVICES = 4, WORK = 4096 };

typedef struct event {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int recorded, reached;
} event;

typedef struct {
  void (*function)(void *);
  void *data;
  event *reach, *wait;
  int number;
} work;

typedef struct stream {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  work queue[WORK];
  int first, end, busy;
} stream;

static __thread int current;
static stream defaults[DEVICES];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int launches;

static void *serve(void *data) {
  stream *s = data;
  for (;;) {
    pthread_mutex_lock(&s->lock);
    while (s->first == s->end) pthread_cond_wait(&s->changed, &s->lock);
    work w = s->queue[s->first++ % WORK];
    s->busy = 1;
    pthread_mutex_unlock(&s->lock);
    if (w.function != NULL) w.function(w.data);
    if (w.reach != NULL) {
      pthread_mutex_lock(&w.reach->lock);
      if (w.reach->reached < w.number) w.reach->reached = w.number;
      pthread_cond_broadcast(&w.reach->changed);
      pthread_mutex_unlock(&w.reach->lock);
    }
    if (w.wait != NULL) {
      pthread_mutex_lock(&w.wait->lock);
      while (w.wait->reached < w.number) pthread_cond_wait(&w.wait->changed, &w.wait->lock);
      pthread_mutex_unlock(&w.wait->lock);
    }
    pthread_mutex_lock(&s->lock);
    s->busy = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
  }
  return NULL;
}

static void open_stream(stream *s) {
  pthread_t thread;
  CHECK(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_cond_init(&s->changed, NULL) == 0);
  CHECK(pthread_create(&thread, NULL, serve, s) == 0 && pthread_detach(thread) == 0);
}

static void open_defaults(void) {
  for (int d = 0; d < DEVICES; d++) open_stream(&defaults[d]);
}

static stream *of(cudaStream_t handle) {
  pthread_once(&once, open_defaults);
  return handle != NULL ? (stream *)(void *)handle : &defaults[current];
}

static void put(cudaStream_t handle, work w) {
  stream *s = of(handle);
  pthread_mutex_lock(&s->lock);
  CHECK(s->end - s->first < WORK);
  s->queue[s->end++ % WORK] = w;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

static void synchronize(cudaStream_t handle) {
  stream *s = of(handle);
  pthread_mutex_lock(&s->lock);
  while (s->first != s->end || s->busy) pthread_cond_wait(&s->changed, &s->lock);
  pthread_mutex_unlock(&s->lock);
}

int cudaLaunchHostFunc(cudaStream_t handle, void (*function)(void *), void *data);
int cudaEventCreateWithFlags(event **e, unsigned int flags);
int cudaEventRecord(event *e, cudaStream_t handle);
int cudaEventDestroy(event *e);
int cudaStreamWaitEvent(cudaStream_t handle, event *e, unsigned int flags);
int cudaGetDevice(int *device);
int cudaSetDevice(int device);
int cudaGetDeviceCount(int *count);

int cudaLaunchHostFunc(cudaStream_t handle, void (*function)(void *), void *data) {
  work w = { function, data, NULL, NULL, 0 };
  launches++;
  put(handle, w);
  return 0;
}

int cudaEventCreateWithFlags(event **e, unsigned int flags) {
  CHECK(flags == 2);
  *e = calloc(1, sizeof **e);
  CHECK(*e != NULL && pthread_mutex_init(&(*e)->lock, NULL) == 0 && pthread_cond_init(&(*e)->changed, NULL) == 0);
  return 0;
}

int cudaEventRecord(event *e, cudaStream_t handle) {
  pthread_mutex_lock(&e->lock);
  work w = { NULL, NULL, e, NULL, ++e->recorded };
  pthread_mutex_unlock(&e->lock);
  put(handle, w);
  return 0;
}

int cudaEventDestroy(event *e) {
  /* Streams may still be waiting for it, and this program is short. */
  (void)e;
  return 0;
}

int cudaStreamWaitEvent(cudaStream_t handle, event *e, unsigned int flags) {
  pthread_mutex_lock(&e->lock);
  work w = { NULL, NULL, NULL, e, e->recorded };
  pthread_mutex_unlock(&e->lock);
  CHECK(flags == 0);
  put(handle, w);
  return 0;
}

int cudaGetDevice(int *device) {
  *device = current;
  return 0;
}

int cudaSetDevice(int device) {
  CHECK(device >= 0 && device < DEVICES);
  current = device;
  return 0;
}

int cudaGetDeviceCount(int *count) {
  *count = DEVICES;
  return 0;
}

/* The program. */

static cudaStream_t fresh(void) {
  stream *s = calloc(1, sizeof *s);
  CHECK(s != NULL);
  open_stream(s);
  return (cudaStream_t)(void *)s;
}

/* Keeps a stream busy until it is told. */
static void gate(void *data) {
  volatile int *is_open = data;
  while (!*is_open) nap();
}

static void add_ten(void *data) {
  *(int *)data += 10;
}

int main(void) {
  start();
  ncclComm_t comms[DEVICES];
  cudaStream_t streams[DEVICES], others[DEVICES];
  int in[DEVICES], out[DEVICES], got[DEVICES];
  OK(ncclCommInitAll(comms, DEVICES, NULL));
  for (int d = 0; d < DEVICES; d++) {
    int device = -1;
    streams[d] = fresh();
    others[d] = fresh();
    OK(ncclCommCuDevice(comms[d], &device));
    CHECK(device == d && current == 0);
  }
  /* One after the other by one thread, which is only possible because none waits. */
  for (int d = 0; d < DEVICES; d++) {
    in[d] = d + 1;
    out[d] = 0;
    OK(ncclAllReduce(&in[d], &out[d], 1, ncclInt32, ncclSum, comms[d], streams[d]));
    cudaLaunchHostFunc(streams[d], add_ten, &out[d]);
  }
  for (int d = 0; d < DEVICES; d++) {
    synchronize(streams[d]);
    CHECK(out[d] == 20);
  }
  /* On the default stream of each device. */
  for (int d = 0; d < DEVICES; d++) OK(ncclAllReduce(&in[d], &out[d], 1, ncclInt32, ncclMax, comms[d], NULL));
  for (int d = 0; d < DEVICES; d++) {
    current = d;
    synchronize(NULL);
    CHECK(out[d] == DEVICES);
  }
  current = 0;
  /* On another stream the second operation still comes after the first, which waits behind a gate. */
  volatile int is_open = 0;
  for (int d = 0; d < DEVICES; d++) {
    cudaLaunchHostFunc(streams[d], gate, (void *)&is_open);
    OK(ncclAllReduce(&in[d], &out[d], 1, ncclInt32, ncclSum, comms[d], streams[d]));
    OK(ncclAllReduce(&out[d], &got[d], 1, ncclInt32, ncclMin, comms[d], others[d]));
  }
  for (int i = 0; i < 50; i++) nap();
  for (int d = 0; d < DEVICES; d++) CHECK(out[d] == DEVICES);
  is_open = 1;
  for (int d = 0; d < DEVICES; d++) {
    synchronize(others[d]);
    CHECK(out[d] == 10 && got[d] == 10);
  }
  /* A group on two streams per communicator: both wait before, and both wait behind. */
  is_open = 0;
  int before = launches;
  for (int d = 0; d < DEVICES; d++) cudaLaunchHostFunc(others[d], gate, (void *)&is_open);
  OK(ncclGroupStart());
  for (int d = 0; d < DEVICES; d++) {
    got[d] = -1;
    OK(ncclSend(&in[d], 1, ncclInt32, (d + 1) % DEVICES, comms[d], streams[d]));
    OK(ncclRecv(&got[d], 1, ncclInt32, (d + DEVICES - 1) % DEVICES, comms[d], others[d]));
  }
  CHECK(launches == before + DEVICES);
  OK(ncclGroupEnd());
  CHECK(launches == before + 2 * DEVICES);
  for (int i = 0; i < 50; i++) nap();
  for (int d = 0; d < DEVICES; d++) CHECK(got[d] == -1);
  is_open = 1;
  for (int d = 0; d < DEVICES; d++) {
    synchronize(others[d]);
    CHECK(got[d] == (d + DEVICES - 1) % DEVICES + 1);
  }
  /* A multiplier in device memory is read when its operation runs. */
  double scalar = 1, x[DEVICES], y[DEVICES];
  is_open = 0;
  for (int d = 0; d < DEVICES; d++) {
    ncclRedOp_t op;
    x[d] = 1;
    OK(ncclRedOpCreatePreMulSum(&op, &scalar, ncclFloat64, ncclScalarDevice, comms[d]));
    cudaLaunchHostFunc(streams[d], gate, (void *)&is_open);
    OK(ncclAllReduce(&x[d], &y[d], 1, ncclFloat64, op, comms[d], streams[d]));
    OK(ncclRedOpDestroy(op, comms[d]));
  }
  scalar = 3;
  is_open = 1;
  for (int d = 0; d < DEVICES; d++) {
    synchronize(streams[d]);
    CHECK(y[d] == 3 * DEVICES);
  }
  /* Wrong arguments are told at the call; what fails later is told when it is asked for. */
  REFUSED(ncclSend(&in[0], 1, ncclInt32, DEVICES, comms[0], streams[0]));
  IS(ncclSend(&in[0], 1, ncclInt32, 0, comms[0], streams[0]), ncclInvalidUsage);
  OK(ncclRecv(&in[0], 1, ncclInt32, 1, comms[0], streams[0]));
  OK(ncclCommAbort(comms[1]));
  synchronize(streams[0]);
  ncclResult_t state = ncclSuccess;
  OK(ncclCommGetAsyncError(comms[0], &state));
  CHECK(state == ncclRemoteError);
  for (int d = 0; d < DEVICES; d++) {
    if (d != 1) OK(ncclCommDestroy(comms[d]));
  }
  puts("fine");
  return 0;
}
