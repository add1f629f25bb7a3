/* Communicators in all the ways there are to make them. Needs at least two ranks. */
#include "ranks.h"

static void unblocked(void) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  /* As programs do that were compiled with an older header. */
  config.size = 96;
  ncclComm_t comm = NULL;
  IS(ncclCommInitRankConfig(&comm, nranks, meet("unblocked"), rank, &config), ncclInProgress);
  CHECK(comm != NULL && settled(comm) == ncclSuccess);
  works(comm, nranks, rank);
  /* Children are what their parents are. */
  ncclComm_t child = NULL;
  IS(ncclCommSplit(comm, 0, -rank, &child, NULL), ncclInProgress);
  CHECK(child != NULL && settled(child) == ncclSuccess);
  works(child, nranks, nranks - 1 - rank);
  OK(ncclCommDestroy(child));
  OK(ncclCommDestroy(comm));
  /* One that never comes to be: rank 0 alone, and it is given up. */
  if (rank == 0) {
    ncclUniqueId id;
    OK(ncclGetUniqueId(&id));
    IS(ncclCommInitRankConfig(&comm, 2, id, 1, &config), ncclInProgress);
    ncclResult_t state;
    OK(ncclCommGetAsyncError(comm, &state));
    CHECK(state == ncclInProgress);
    int count;
    REFUSED(ncclCommCount(comm, &count));
    OK(ncclCommAbort(comm));
  }
}

/* Two communicators at once, in which this rank has different places: only a group can make them. */
static void grouped(void) {
  ncclUniqueId one = meet("one"), two = meet("two");
  ncclComm_t comms[2] = { NULL, NULL };
  OK(ncclGroupStart());
  OK(ncclCommInitRank(&comms[rank % 2], nranks, rank % 2 ? two : one, rank));
  OK(ncclCommInitRank(&comms[1 - rank % 2], nranks, rank % 2 ? one : two, rank));
  OK(ncclGroupEnd());
  works(comms[0], nranks, rank);
  works(comms[1], nranks, rank);
  /* Splits of one communicator keep their order. */
  ncclComm_t even = NULL, all = NULL;
  OK(ncclGroupStart());
  OK(ncclCommSplit(comms[0], rank % 2 == 0 ? 5 : NCCL_SPLIT_NOCOLOR, 0, &even, NULL));
  OK(ncclCommSplit(comms[0], 3, nranks - rank, &all, NULL));
  OK(ncclGroupEnd());
  works(all, nranks, nranks - 1 - rank);
  if (rank % 2 == 0) {
    works(even, (nranks + 1) / 2, rank / 2);
    OK(ncclCommDestroy(even));
  } else {
    CHECK(even == NULL);
  }
  OK(ncclCommDestroy(all));
  OK(ncclCommDestroy(comms[0]));
  OK(ncclCommDestroy(comms[1]));
}

static void scalable(void) {
  ncclUniqueId ids[2];
  ids[0] = meet("scalable 0");
  ids[1] = meet("scalable 1");
  ncclComm_t comm = NULL;
  OK(ncclCommInitRankScalable(&comm, nranks, rank, 2, ids, NULL));
  works(comm, nranks, rank);
  OK(ncclCommDestroy(comm));
}

static void shrunk_and_grown(void) {
  ncclComm_t comm = join("whole"), small = NULL, grown = NULL;
  int last = nranks - 1;
  if (rank != last) {
    OK(ncclCommShrink(comm, &last, 1, &small, NULL, NCCL_SHRINK_DEFAULT));
    works(small, nranks - 1, rank);
    REFUSED(ncclCommShrink(comm, &rank, 1, &grown, NULL, NCCL_SHRINK_DEFAULT));
  }
  works(comm, nranks, rank);
  OK(ncclCommDestroy(comm));
  /* The last one comes back, as a newcomer. */
  ncclUniqueId id;
  if (rank == 0) OK(ncclCommGetUniqueId(small, &id));
  if (rank == 0 || rank == last) share(&id, "grown", rank == 0);
  if (rank == last) {
    OK(ncclCommGrow(NULL, nranks, &id, last, &grown, NULL));
  } else {
    OK(ncclCommGrow(small, nranks, rank == 0 ? &id : NULL, -1, &grown, NULL));
    OK(ncclCommDestroy(small));
  }
  works(grown, nranks, rank);
  OK(ncclCommDestroy(grown));
}

static void revoked(void) {
  ncclComm_t comm = join("revoked"), rest = NULL;
  works(comm, nranks, rank);
  all_are("at work");
  int got, first = 0;
  if (rank == 0) {
    /* When the others wait, as a rule. */
    for (int i = 0; i < 20; i++) nap();
    OK(ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT));
    CHECK(settled(comm) == ncclSuccess);
    REFUSED(ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT));
    IS(ncclCommFinalize(comm), ncclInvalidUsage);
    IS(ncclRecv(&got, 1, ncclInt32, 1, comm, NULL), ncclInvalidUsage);
  } else {
    /* Nobody sends: the call ends because the communicator does. */
    IS(ncclRecv(&got, 1, ncclInt32, 0, comm, NULL), ncclRemoteError);
    ncclResult_t state;
    OK(ncclCommGetAsyncError(comm, &state));
    CHECK(state == ncclRemoteError);
    OK(ncclCommShrink(comm, &first, 1, &rest, NULL, NCCL_SHRINK_ABORT));
    works(rest, nranks - 1, rank - 1);
    OK(ncclCommDestroy(rest));
  }
  OK(ncclCommDestroy(comm));
}

int main(void) {
  start();
  CHECK(nranks > 1);
  unblocked();
  grouped();
  scalable();
  shrunk_and_grown();
  revoked();
  puts("fine");
  return 0;
}
