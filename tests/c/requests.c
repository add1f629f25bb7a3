/* Requests, events and callbacks; groups across worlds that fail in part; forks; handles that many threads use. */
#define _DEFAULT_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "check.h"

/* Posts a receive from rank 1 on rank 0 of a pair, in a group of its own. */
static mwRequest_t pending_recv(mwWorld_t world, int32_t* value) {
  mwRequest_t request = NULL;
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwRecv(value, 1, mwInt32, 1, world, NULL));
  CHECK_OK(mwGroupSubmit(&request));
  return request;
}

static void abort_pair(mwWorld_t* pair) {
  CHECK_OK(mwWorldAbort(pair[0]));
  CHECK_OK(mwWorldAbort(pair[1]));
}

/* Everything there is to ask of a request before and after it is done. */
static void waiting(void) {
  mwWorld_t pair[2];
  mwRequest_t requests[3] = {NULL, NULL, NULL};
  int32_t in = 42, out[2] = {0, 0};
  int done = 77, index = 77;
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  requests[1] = pending_recv(pair[0], &out[0]);
  requests[2] = pending_recv(pair[0], &out[1]);
  CHECK_OK(mwRequestTest(requests[1], &done));
  CHECK(done == 0);
  CHECK_RESULT(mwInProgress, mwRequestWait(requests[1], 0));
  CHECK_RESULT(mwInProgress, mwRequestWait(requests[1], 20));
  CHECK_RESULT(mwInProgress, mwRequestWaitAny(3, requests, &index, 20));
  CHECK(index == -1 && out[0] == 0);

  CHECK_OK(mwSend(&in, 1, mwInt32, 0, pair[1], NULL));
  CHECK_OK(mwRequestWaitAny(3, requests, &index, -1));
  CHECK(index == 1 && out[0] == 42 && out[1] == 0);
  for (int i = 0; i < 2; ++i) { /* As often as it is asked. */
    CHECK_OK(mwRequestTest(requests[1], &done));
    CHECK(done == 1);
    CHECK_OK(mwRequestWait(requests[1], -1));
  }
  CHECK_OK(mwRequestFree(requests[1]));
  CHECK_REFUSED("requests[1]", mwRequestWaitAny(3, requests, &index, 0)); /* freed, but not set to NULL */
  requests[1] = NULL;
  CHECK_RESULT(mwInProgress, mwRequestWaitAny(3, requests, &index, 0));

  /* One that is freed before it is done goes on. */
  CHECK_OK(mwRequestFree(requests[2]));
  in = 43;
  CHECK_OK(mwSend(&in, 1, mwInt32, 0, pair[1], NULL));
  requests[0] = pending_recv(pair[0], &out[0]);
  in = 44;
  CHECK_OK(mwSend(&in, 1, mwInt32, 0, pair[1], NULL));
  CHECK_OK(mwRequestWait(requests[0], -1));
  CHECK(out[0] == 44 && out[1] == 43);
  CHECK_OK(mwRequestFree(requests[0]));
  requests[0] = NULL;
  CHECK_REFUSED("requests", mwRequestWaitAny(3, requests, &index, 0)); /* all NULL */
  check_ranks(pair, 2, check_destroy);
}

/* A request may outlive its world, and then says how the world ended. */
static void outliving(void) {
  mwWorld_t pair[2];
  int32_t out = 0;
  int done = 0;
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  mwRequest_t aborted = pending_recv(pair[0], &out);
  CHECK_OK(mwWorldAbort(pair[0]));
  CHECK_RESULT(mwAborted, mwRequestWait(aborted, -1));
  CHECK_RESULT(mwAborted, mwRequestTest(aborted, &done));
  CHECK(done == 1);
  CHECK_OK(mwRequestFree(aborted));
  CHECK_OK(mwWorldAbort(pair[1]));

  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  mwRequest_t broken = pending_recv(pair[0], &out);
  CHECK_OK(mwWorldAbort(pair[1]));
  CHECK_RESULT(mwRemoteError, mwRequestWait(broken, -1));
  CHECK_OK(mwWorldDestroy(pair[0]));
  CHECK_RESULT(mwRemoteError, mwRequestWait(broken, 0));
  CHECK_OK(mwRequestFree(broken));
  CHECK(out == 0);
}

/* Of a group across two worlds, one of which is broken, the other world's part is done. */
static void partly_failed_group(void) {
  mwWorld_t good, pair[2];
  int32_t in = 6, out = 0, never = 0;
  NEED(mwWorldInitAll(&good, 1, NULL) == mwSuccess);
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  CHECK_OK(mwWorldAbort(pair[1]));
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwRecv(&never, 1, mwInt32, 1, pair[0], NULL));
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, mwSum, good, NULL));
  CHECK_RESULT(mwRemoteError, mwGroupEnd());
  CHECK(out == 6 && never == 0);
  CHECK_OK(mwWorldAbort(pair[0]));
  CHECK_OK(mwBarrier(good, NULL));
  CHECK_OK(mwWorldDestroy(good));
}

static int readable(int fd) {
  struct pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

/* The tests before this one left events behind. */
static void drain(void) {
  mwEvent_t event;
  while (mwEventNext(&event, 0) == mwSuccess) {
  }
}

typedef struct {
  int calls; /* atomic */
  mwWorld_t world;
} Called;

/* Does what a callback is most likely to do. */
static void on_event(const mwEvent_t* event, void* user) {
  Called* called = user;
  CHECK(event->kind == mwEventRankFailed && event->world == called->world && event->rank == 1);
  CHECK_OK(mwWorldAbort(called->world));
  __atomic_add_fetch(&called->calls, 1, __ATOMIC_RELEASE);
}

static void events(void) {
  mwWorld_t pair[2];
  mwEvent_t event;
  Called called;
  int fd = -1, fd_again = -1;
  drain();
  CHECK_OK(mwEventFd(&fd));
  CHECK_OK(mwEventFd(&fd_again));
  CHECK(fd >= 0 && fd == fd_again && !readable(fd));
  CHECK_RESULT(mwInProgress, mwEventNext(&event, 0));
  CHECK_RESULT(mwInProgress, mwEventNext(&event, 20));

  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  CHECK_OK(mwWorldAbort(pair[1]));
  memset(&event, 0x5a, sizeof event);
  CHECK_OK(mwEventNext(&event, 10000));
  CHECK(event.kind == mwEventRankFailed && event.result == mwRemoteError);
  CHECK(event.world == pair[0] && event.rank == 1 && event.timestampNs > 0);
  CHECK(memchr(event.name, '\0', sizeof event.name) != NULL && event.name[0] != '\0');
  CHECK(memchr(event.reason, '\0', sizeof event.reason) != NULL && strstr(event.reason, "rank 1") != NULL);
  CHECK(!readable(fd));
  CHECK_OK(mwWorldAbort(pair[0]));
  CHECK_RESULT(mwInProgress, mwEventNext(&event, 0)); /* Nobody is told what he did himself. */

  /* A callback, which may end its own world; the event is in the queue as well. */
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  called.calls = 0;
  called.world = pair[0];
  CHECK_OK(mwWorldSetCallback(pair[0], on_event, &called));
  CHECK_OK(mwWorldAbort(pair[1]));
  for (int i = 0; i < 1000 && __atomic_load_n(&called.calls, __ATOMIC_ACQUIRE) == 0; ++i) usleep(10000);
  CHECK(__atomic_load_n(&called.calls, __ATOMIC_ACQUIRE) == 1);
  CHECK_REFUSED("world", mwWorldAbort(pair[0]));
  CHECK_OK(mwEventNext(&event, 0));
  CHECK(event.world == pair[0] && event.kind == mwEventRankFailed);

  /* One that was taken back is not called. */
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  CHECK_OK(mwWorldSetCallback(pair[0], on_event, &called));
  CHECK_OK(mwWorldSetCallback(pair[0], NULL, NULL));
  CHECK_OK(mwWorldAbort(pair[1]));
  CHECK_OK(mwEventNext(&event, 10000));
  usleep(20000);
  CHECK(__atomic_load_n(&called.calls, __ATOMIC_ACQUIRE) == 1);
  CHECK_OK(mwWorldAbort(pair[0]));
}

/* A fork has the handles and nothing behind them: clear errors in the child, no effect on the parent. */
static void forked(void) {
  mwWorld_t pair[2], other;
  int32_t value = 5, out = 0;
  int status = -1, verdict = 0, ends[2];
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  fflush(stdout);
  NEED(pipe(ends) == 0);
  pid_t child = fork();
  NEED(child >= 0);
  if (child == 0) {
    int good = mwSend(&value, 1, mwInt32, 1, pair[0], NULL) == mwInvalidUsage;
    good = good && strstr(mwGetLastError(NULL), "fork") != NULL;
    good = good && mwWorldInitAll(&other, 1, NULL) == mwInvalidUsage && other == NULL;
    good = good && strstr(mwGetLastError(NULL), "fork") != NULL;
    good = good && mwWorldDestroy(NULL) == mwInvalidArgument;
    NEED(write(ends[1], &good, sizeof good) == sizeof good);
    raise(SIGKILL); /* Valgrind would look for leaks here, where the stacks of all other threads are gone. */
  }
  CHECK(read(ends[0], &verdict, sizeof verdict) == sizeof verdict && verdict == 1);
  CHECK(waitpid(child, &status, 0) == child);
  close(ends[0]);
  close(ends[1]);
  mwRequest_t request = pending_recv(pair[0], &out);
  CHECK_OK(mwSend(&value, 1, mwInt32, 0, pair[1], NULL));
  CHECK_OK(mwRequestWait(request, -1));
  CHECK(out == 5);
  CHECK_OK(mwRequestFree(request));
  check_ranks(pair, 2, check_destroy);
}

/* Threads that use a world while another one ends it and makes the next: an answer or an error, never a crash. */
static mwWorld_t shared_world; /* atomic, both */
static int stop;

static void* user_of_shared_world(void* argument) {
  long kind = (long)(intptr_t)argument, unexpected = 0;
  while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
    mwWorld_t world = __atomic_load_n(&shared_world, __ATOMIC_ACQUIRE);
    int32_t in = 1, out = 0;
    int number = 1;
    mwResult_t result;
    if (kind == 0) result = mwAllReduce(&in, &out, 1, mwInt32, mwSum, world, NULL);
    else if (kind == 1) result = mwWorldCount(world, &number);
    else result = mwRecv(&out, 1, mwInt32, 1, world, NULL);
    unexpected += result != mwSuccess && result != mwAborted && result != mwInvalidArgument &&
                  result != mwInvalidUsage && result != mwRemoteError;
    unexpected += number < 1 || number > 2;
  }
  CHECK(unexpected == 0);
  return NULL;
}

static void contended_handles(void) {
  const int rounds = check_quick() ? 10 : 200;
  pthread_t threads[3];
  mwWorld_t worlds[2];
  NEED(mwWorldInitAll(worlds, 2, NULL) == mwSuccess);
  __atomic_store_n(&shared_world, worlds[0], __ATOMIC_RELEASE);
  for (int i = 0; i < 3; ++i) {
    NEED(pthread_create(&threads[i], NULL, user_of_shared_world, (void*)(intptr_t)i) == 0);
  }
  for (int round = 0; round < rounds; ++round) {
    mwWorld_t next[2];
    NEED(mwWorldInitAll(next, 2, NULL) == mwSuccess);
    __atomic_store_n(&shared_world, next[0], __ATOMIC_RELEASE);
    abort_pair(worlds);
    memcpy(worlds, next, sizeof worlds);
  }
  /* With its world aborted nothing can keep a thread in a call. */
  __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
  abort_pair(worlds);
  for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
}

int main(void) {
  waiting();
  outliving();
  partly_failed_group();
  events();
  forked();
  contended_handles();
  return check_report("requests");
}
