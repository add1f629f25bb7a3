/* A world's life: what it says about itself, split, revoke, finalize, abort, deadlines, mismatches. */
#define _DEFAULT_SOURCE
#include <time.h>

#include "check.h"

enum { RANKS = 4 };

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static mwWorldState_t state_of(mwWorld_t world) {
  mwWorldState_t state = mwWorldActive;
  CHECK_OK(mwWorldGetState(world, &state));
  return state;
}

static void describe(mwWorld_t world, int nranks, int rank) {
  int number = -7, failed[RANKS], count = RANKS;
  char name[MW_WORLD_NAME_BYTES] = "";
  uint64_t epoch = 77;
  mwResult_t error = mwInternalError;
  mwWorldStats_t stats;
  CHECK_OK(mwWorldCount(world, &number));
  CHECK(number == nranks);
  CHECK_OK(mwWorldUserRank(world, &number));
  CHECK(number == rank);
  CHECK_OK(mwWorldDevice(world, &number));
  CHECK(number == -1);
  CHECK_OK(mwWorldName(world, name, sizeof name));
  CHECK(memchr(name, '\0', sizeof name) != NULL);
  CHECK_OK(mwWorldEpoch(world, &epoch));
  CHECK(state_of(world) == mwWorldActive);
  CHECK_OK(mwWorldGetAsyncError(world, &error));
  CHECK(error == mwSuccess);
  CHECK_OK(mwWorldGetFailedRanks(world, failed, &count));
  CHECK(count == 0);
  CHECK_OK(mwBarrier(world, NULL));
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  CHECK_OK(mwWorldGetStats(world, &stats));
  CHECK(stats.size == sizeof stats);
  CHECK(stats.operations >= 1);
}

/* Even ranks in one world, odd ones in another, in reverse order; rank 3 stays out of the second split. */
static void split(mwWorld_t world, int nranks, int rank) {
  mwWorld_t half = NULL, rest = NULL;
  int number = -1;
  int32_t mine = rank, sum = 0;
  CHECK_OK(mwWorldSplit(world, rank % 2, -rank, &half, NULL));
  CHECK_OK(mwWorldCount(half, &number));
  CHECK(number == nranks / 2);
  CHECK_OK(mwWorldUserRank(half, &number));
  CHECK(number == (rank < 2 ? 1 : 0));
  CHECK_OK(mwAllReduce(&mine, &sum, 1, mwInt32, mwSum, half, NULL));
  CHECK(sum == (rank % 2 == 0 ? 0 + 2 : 1 + 3));
  CHECK_OK(mwWorldDestroy(half));

  CHECK_OK(mwWorldSplit(world, rank == 3 ? MW_SPLIT_NOCOLOR : 5, 0, &rest, NULL));
  CHECK((rest == NULL) == (rank == 3));
  if (rest != NULL) {
    CHECK_OK(mwAllReduce(&mine, &sum, 1, mwInt32, mwSum, rest, NULL));
    CHECK(sum == 0 + 1 + 2);
    CHECK_OK(mwWorldDestroy(rest));
  }
  CHECK_OK(mwBarrier(world, NULL)); /* The parent is as good as before. */
}

/* Rank 0 revokes while the others wait for something that never comes. */
static void revoke_world(mwWorld_t world, int nranks, int rank) {
  int32_t value = 0;
  (void)nranks;
  if (rank == 0) {
    usleep(50000);
    CHECK_OK(mwWorldRevoke(world));
    CHECK_OK(mwWorldRevoke(world)); /* again is no error */
  } else {
    CHECK_RESULT(mwRevoked, mwRecv(&value, 1, mwInt32, 0, world, NULL));
  }
  CHECK_RESULT(mwRevoked, mwBarrier(world, NULL));
  CHECK(state_of(world) == mwWorldRevoked);
  CHECK_OK(mwWorldAbort(world));
}

static void finalize(mwWorld_t world, int nranks, int rank) {
  (void)nranks;
  (void)rank;
  CHECK_OK(mwWorldFinalize(world));
  CHECK(state_of(world) == mwWorldFinalized);
  CHECK_RESULT(mwInvalidUsage, mwBarrier(world, NULL));
  CHECK_OK(mwWorldDestroy(world));
}

static void* wait_for_nothing(void* argument) {
  int32_t value = 0;
  mwResult_t result = mwRecv(&value, 1, mwInt32, 1, (mwWorld_t)argument, NULL);
  /* Aborted while it waited, or, on a slow machine, gone before it began. */
  CHECK(result == mwAborted || result == mwInvalidArgument);
  return NULL;
}

/* An abort from another thread ends a call at once. */
static void abort_while_waiting(void) {
  mwWorld_t pair[2];
  pthread_t thread;
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  NEED(pthread_create(&thread, NULL, wait_for_nothing, pair[0]) == 0);
  usleep(50000);
  double start = seconds();
  CHECK_OK(mwWorldAbort(pair[0]));
  pthread_join(thread, NULL);
  CHECK(seconds() - start < 5.0);
  CHECK_OK(mwWorldAbort(pair[1]));
}

/* No call hangs: the deadline of the configuration ends it. */
static void deadline(void) {
  mwWorld_t pair[2];
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  int32_t value = 0;
  config.timeoutMs = 200;
  NEED(mwWorldInitAll(pair, 2, &config) == mwSuccess);
  double start = seconds();
  CHECK_RESULT(mwTimeout, mwRecv(&value, 1, mwInt32, 1, pair[0], NULL));
  CHECK(seconds() - start >= 0.15 && seconds() - start < 10.0);
  CHECK_OK(mwWorldAbort(pair[0]));
  CHECK_OK(mwWorldAbort(pair[1]));
}

/* Different calls on different ranks are an error on both, which names them; nobody's data is touched. */
static void mismatch(mwWorld_t world, int nranks, int rank) {
  int32_t data[4] = {1, 2, 3, 4};
  mwResult_t result;
  (void)nranks;
  if (rank == 0) result = mwBroadcast(data, data, 4, mwInt32, 0, world, NULL);
  else result = mwBroadcast(data, data, 3, mwInt32, 0, world, NULL);
  /* The sender may be through before the receiver has looked; then its next call tells. */
  for (int i = 0; i < 100 && result == mwSuccess; ++i) {
    usleep(10000);
    result = mwBarrier(world, NULL);
  }
  CHECK(result == mwInvalidUsage);
  CHECK(data[0] == 1 && data[3] == 4);
  CHECK(strstr(mwGetLastError(NULL), "Broadcast") != NULL);
  CHECK(state_of(world) == mwWorldBroken);
  CHECK_OK(mwWorldAbort(world));
}

/* By unique id, with no store configured. */
static mwUniqueId shared_id;

static void* join_by_id(void* argument) {
  int rank = *(int*)argument;
  int32_t mine = rank + 1, sum = 0;
  mwWorld_t world;
  NEED(mwWorldInitRank(&world, 3, shared_id, rank, NULL) == mwSuccess);
  CHECK_OK(mwAllReduce(&mine, &sum, 1, mwInt32, mwSum, world, NULL));
  CHECK(sum == 1 + 2 + 3);
  CHECK_OK(mwWorldDestroy(world));
  return NULL;
}

static void unique_id(void) {
  pthread_t threads[3];
  int ranks[3] = {0, 1, 2};
  mwUniqueId other;
  CHECK_OK(mwGetUniqueId(&shared_id));
  CHECK_OK(mwGetUniqueId(&other));
  CHECK(memcmp(&shared_id, &other, sizeof other) != 0);
  for (int i = 0; i < 3; ++i) NEED(pthread_create(&threads[i], NULL, join_by_id, &ranks[i]) == 0);
  for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
}

/* A member that does not come: joining ends at its own deadline. */
static void missing_member(void) {
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  mwWorld_t world = NULL;
  mwUniqueId id;
  config.joinTimeoutMs = 300;
  CHECK_OK(mwGetUniqueId(&id));
  double start = seconds();
  CHECK_RESULT(mwTimeout, mwWorldInitRank(&world, 2, id, 0, &config));
  CHECK(seconds() - start < 10.0);
  CHECK(world == NULL);
}

int main(void) {
  mwWorld_t worlds[RANKS];
  static void (*const bodies[])(mwWorld_t, int, int) = {revoke_world, finalize};
  NEED(mwWorldInitAll(worlds, RANKS, NULL) == mwSuccess);
  check_ranks(worlds, RANKS, describe);
  check_ranks(worlds, RANKS, split);
  check_ranks(worlds, RANKS, check_destroy);
  for (int i = 0; i < 2; ++i) {
    NEED(mwWorldInitAll(worlds, RANKS, NULL) == mwSuccess);
    check_ranks(worlds, RANKS, bodies[i]);
  }
  NEED(mwWorldInitAll(worlds, 2, NULL) == mwSuccess);
  check_ranks(worlds, 2, mismatch);
  abort_while_waiting();
  deadline();
  unique_id();
  missing_member();
  return check_report("worlds");
}
