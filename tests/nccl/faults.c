/* The last rank kills itself, in the way that HOW says; the others find out in time and go on without it. */
#include "ranks.h"

int main(void) {
  start();
  const char *how = getenv("HOW");
  CHECK(how != NULL && nranks > 1);
  ncclComm_t comm = join("all"), rest = NULL, witness = NULL;
  const int victim = nranks - 1;
  /* A communicator without the victim goes on all the time. */
  OK(ncclCommSplit(comm, rank == victim ? NCCL_SPLIT_NOCOLOR : 0, rank, &witness, NULL));
  works(comm, nranks, rank);
  all_are("at work");
  static double data[100000];
  if (rank == victim) {
    /* When the others wait for it, and some when they have gone to sleep. */
    for (int i = 0; i < (strcmp(how, "late") == 0 ? 100 : 20); i++) nap();
    kill(getpid(), SIGKILL);
  }
  double begin = seconds();
  ncclResult_t result = ncclSuccess, state = ncclSuccess;
  if (strcmp(how, "idle") == 0) {
    while (state == ncclSuccess && seconds() < begin + 20) {
      OK(ncclCommGetAsyncError(comm, &state));
      nap();
    }
    result = ncclAllReduce(data, data, 100000, ncclFloat64, ncclSum, comm, NULL);
  } else if (strcmp(how, "group") == 0) {
    OK(ncclGroupStart());
    OK(ncclSend(data, 100000, ncclFloat64, victim, comm, NULL));
    OK(ncclRecv(data, 100000, ncclFloat64, victim, comm, NULL));
    result = ncclGroupEnd();
  } else {
    result = ncclAllReduce(data, data, 100000, ncclFloat64, ncclSum, comm, NULL);
  }
  CHECK(result == ncclRemoteError);
  OK(ncclCommGetAsyncError(comm, &state));
  CHECK(state == ncclRemoteError);
  CHECK(seconds() - begin < 5);
  CHECK(strstr(ncclGetLastError(comm), "rank") != NULL);
  works(witness, nranks - 1, rank);
  int dead = victim;
  OK(ncclCommShrink(comm, &dead, 1, &rest, NULL, NCCL_SHRINK_ABORT));
  works(rest, nranks - 1, rank);
  OK(ncclCommAbort(comm));
  REFUSED(ncclCommAbort(comm));
  OK(ncclCommDestroy(rest));
  OK(ncclCommDestroy(witness));
  puts("fine");
  return 0;
}
