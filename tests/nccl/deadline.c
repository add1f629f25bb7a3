/* Rank 0 waits for a message that is never sent; its deadline ends the communicator for both. */
#include "ranks.h"

int main(void) {
  start();
  CHECK(nranks == 2);
  ncclComm_t comm = join("deadline");
  works(comm, nranks, rank);
  all_are("at work");
  ncclResult_t state = ncclSuccess;
  double begin = seconds();
  if (rank == 0) {
    int got;
    IS(ncclRecv(&got, 1, ncclInt32, 1, comm, NULL), ncclTimeout);
    CHECK(strstr(ncclGetLastError(comm), "waited") != NULL);
  }
  while (state == ncclSuccess && seconds() < begin + 20) {
    OK(ncclCommGetAsyncError(comm, &state));
    nap();
  }
  CHECK(state == ncclTimeout && seconds() - begin < 10);
  OK(ncclCommAbort(comm));
  puts("fine");
  return 0;
}
