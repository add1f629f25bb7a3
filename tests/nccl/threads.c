/* All ranks in one process: driven by a thread each, and by one thread through groups; and freed by
 * another thread. */
#include <pthread.h>

#include "ranks.h"

enum { MOST = 16 };

static ncclComm_t comms[MOST];

static void *one(void *data) {
  const int me = (int)(intptr_t)data;
  for (int round = 0; round < 50; round++) works(comms[me], nranks, me);
  ncclComm_t half = NULL;
  OK(ncclCommSplit(comms[me], me % 2, me, &half, NULL));
  works(half, me % 2 ? nranks / 2 : (nranks + 1) / 2, me / 2);
  OK(ncclCommDestroy(half));
  return NULL;
}

static void grouped(void) {
  int in[MOST], out[MOST], got[MOST];
  OK(ncclGroupStart());
  for (int r = 0; r < nranks; r++) {
    in[r] = r + 1;
    OK(ncclAllReduce(&in[r], &out[r], 1, ncclInt32, ncclSum, comms[r], NULL));
    OK(ncclSend(&in[r], 1, ncclInt32, (r + 1) % nranks, comms[r], NULL));
    OK(ncclRecv(&got[r], 1, ncclInt32, (r + nranks - 1) % nranks, comms[r], NULL));
  }
  OK(ncclGroupEnd());
  for (int r = 0; r < nranks; r++) {
    CHECK(out[r] == nranks * (nranks + 1) / 2);
    CHECK(got[r] == (r + nranks - 1) % nranks + 1);
  }
  /* New communicators for all ranks by one thread. */
  ncclComm_t children[MOST];
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  OK(ncclGroupStart());
  for (int r = 0; r < nranks; r++) OK(ncclCommInitRank(&children[r], nranks, id, r));
  OK(ncclGroupEnd());
  ncclComm_t halves[MOST];
  OK(ncclGroupStart());
  for (int r = 0; r < nranks; r++) OK(ncclCommSplit(children[r], 0, -r, &halves[r], NULL));
  OK(ncclGroupEnd());
  OK(ncclGroupStart());
  for (int r = 0; r < nranks; r++) OK(ncclAllReduce(&in[r], &out[r], 1, ncclInt32, ncclMax, halves[r], NULL));
  OK(ncclGroupEnd());
  for (int r = 0; r < nranks; r++) {
    int me = -1;
    CHECK(out[r] == nranks);
    OK(ncclCommUserRank(halves[r], &me));
    CHECK(me == nranks - 1 - r);
    OK(ncclCommDestroy(halves[r]));
    OK(ncclCommDestroy(children[r]));
  }
}

static void *stuck(void *data) {
  int got;
  (void)data;
  /* Nobody sends. */
  ncclResult_t result = ncclRecv(&got, 1, ncclInt32, 1, comms[0], NULL);
  return (void *)(intptr_t)result;
}

int main(void) {
  start();
  CHECK(nranks > 1 && nranks <= MOST);
  pthread_t threads[MOST];
  int devices[MOST], device = -1;
  for (int r = 0; r < nranks; r++) devices[r] = nranks - 1 - r;
  OK(ncclCommInitAll(comms, nranks, devices));
  OK(ncclCommCuDevice(comms[0], &device));
  /* Without a CUDA there is only one for a genuine NCCL. */
  if (strcmp(getenv("MW_BACKEND"), "host") == 0) CHECK(device == nranks - 1);
  for (int r = 0; r < nranks; r++) CHECK(pthread_create(&threads[r], NULL, one, (void *)(intptr_t)r) == 0);
  for (int r = 0; r < nranks; r++) CHECK(pthread_join(threads[r], NULL) == 0);
  grouped();
  void *result = NULL;
  CHECK(pthread_create(&threads[0], NULL, stuck, NULL) == 0);
  for (int i = 0; i < 20; i++) nap();
  double begin = seconds();
  OK(ncclCommAbort(comms[0]));
  CHECK(pthread_join(threads[0], &result) == 0);
  CHECK((intptr_t)result != ncclSuccess && seconds() - begin < 5);
  ncclResult_t state = ncclSuccess;
  OK(ncclCommGetAsyncError(comms[1], &state));
  CHECK(state == ncclRemoteError);
  for (int r = 1; r < nranks; r++) OK(ncclCommDestroy(comms[r]));
  puts("fine");
  return 0;
}
