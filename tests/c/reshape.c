/* Worlds from worlds: shrink, grow, and the next epoch of a named one. */
#define _GNU_SOURCE
#include <stdatomic.h>

#include "check.h"

enum { RANKS = 4 };

static mwUniqueId meeting;
static char store[64];

static int32_t sum_of_ones(mwWorld_t world) {
  int32_t one = 1, sum = 0;
  CHECK_OK(mwAllReduce(&one, &sum, 1, mwInt32, mwSum, world, NULL));
  return sum;
}

static int rank_in(mwWorld_t world) {
  int rank = -1;
  CHECK_OK(mwWorldUserRank(world, &rank));
  return rank;
}

/* Rank 1 aborts; the others go on without it, once in order and once in their places. */
static void shrink(mwWorld_t world, int nranks, int rank) {
  const int gone = 1;
  int failed[RANKS], count = RANKS, beyond = nranks, negative = -1;
  mwWorld_t rest = NULL, none = (mwWorld_t)&count;
  if (rank == gone) {
    CHECK_OK(mwWorldAbort(world));
    return;
  }
  CHECK_RESULT(mwRemoteError, mwBarrier(world, NULL));
  CHECK_OK(mwWorldGetFailedRanks(world, failed, &count));
  CHECK(count == 1 && failed[0] == gone);

  CHECK_REFUSED("excludeRanks", mwWorldShrink(world, NULL, 1, MW_SHRINK_DEFAULT, &none, NULL));
  CHECK(none == NULL);
  CHECK_REFUSED("excludeRanks", mwWorldShrink(world, &negative, 1, MW_SHRINK_DEFAULT, &rest, NULL));
  CHECK_REFUSED("excluded", mwWorldShrink(world, &beyond, 1, MW_SHRINK_DEFAULT, &rest, NULL));
  CHECK_REFUSED("excluded", mwWorldShrink(world, &rank, 1, MW_SHRINK_DEFAULT, &rest, NULL));
  CHECK_REFUSED("excludeCount", mwWorldShrink(world, failed, -1, MW_SHRINK_DEFAULT, &rest, NULL));
  CHECK_REFUSED("flags", mwWorldShrink(world, failed, count, 7, &rest, NULL));
  CHECK_REFUSED("newworld", mwWorldShrink(world, failed, count, MW_SHRINK_DEFAULT, NULL, NULL));

  CHECK_OK(mwWorldShrink(world, failed, count, MW_SHRINK_DEFAULT, &rest, NULL));
  CHECK(sum_of_ones(rest) == nranks - 1);
  CHECK(rank_in(rest) == (rank < gone ? rank : rank - 1));
  CHECK_OK(mwWorldDestroy(rest));

  CHECK_OK(mwWorldShrink(world, failed, count, MW_SHRINK_KEEP_RANKS, &rest, NULL));
  CHECK(sum_of_ones(rest) == nranks - 1);
  CHECK(rank_in(rest) == (rank == nranks - 1 ? gone : rank));
  CHECK_OK(mwWorldDestroy(rest));
  CHECK_OK(mwWorldDestroy(world));
}

static void* newcomer(void* unused) {
  mwWorld_t world = NULL;
  CHECK_OK(mwWorldInitRank(&world, 3, meeting, 2, NULL));
  CHECK(sum_of_ones(world) == 3);
  CHECK_OK(mwWorldDestroy(world));
  return unused;
}

static void grow(mwWorld_t world, int nranks, int rank) {
  mwWorld_t more = NULL;
  CHECK_REFUSED("newworld", mwWorldGrow(world, nranks + 1, NULL, NULL, NULL));
  CHECK_REFUSED("nranks", mwWorldGrow(world, nranks, rank == 0 ? &meeting : NULL, &more, NULL));
  CHECK_OK(mwWorldGrow(world, nranks + 1, rank == 0 ? &meeting : NULL, &more, NULL));
  CHECK(rank_in(more) == rank);
  CHECK(sum_of_ones(more) == nranks + 1);
  CHECK_OK(mwWorldDestroy(more));
  CHECK(sum_of_ones(world) == nranks); /* It goes on. */
  CHECK_OK(mwWorldDestroy(world));
}

typedef struct {
  int rank;
  int is_spare;
} Part;

static atomic_int events;
static pthread_barrier_t all_joined;

static void count_event(const mwEvent_t* event, void* user) {
  if (event->rank == 2) atomic_fetch_add((atomic_int*)user, 1);
}

/* Three members; rank 1 goes, a spare comes in its place. */
static void* part(void* argument) {
  Part* mine = argument;
  mwWorld_t world = NULL, old;
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  int rank = mine->rank, i;
  uint64_t epoch = 0;
  config.store = store;
  if (mine->is_spare) {
    CHECK_OK(mwWorldReform(&world, "team", MW_REFORM_ANY, MW_REFORM_ANY, &config));
    rank = 1;
  } else {
    CHECK_OK(mwWorldInit(&world, "team", 3, rank, &config));
    if (rank == 0) CHECK_OK(mwWorldSetCallback(world, count_event, &events));
    pthread_barrier_wait(&all_joined);
    if (rank == 1) {
      CHECK_OK(mwWorldAbort(world));
      return NULL;
    }
    CHECK_RESULT(mwRemoteError, mwBarrier(world, NULL));
    old = world;
    CHECK_REFUSED("minRanks", mwWorldReform(&world, NULL, 0, 3, NULL));
    CHECK_REFUSED("minRanks", mwWorldReform(&world, NULL, MW_REFORM_ANY, MW_REFORM_ANY, NULL));
    CHECK_REFUSED("maxRanks", mwWorldReform(&world, NULL, 3, 2, NULL));
    CHECK_REFUSED("name", mwWorldReform(&world, "other", 3, 3, NULL));
    CHECK_REFUSED("world", mwWorldReform(NULL, "team", 3, 3, NULL));
    CHECK(world == old);
    CHECK_OK(mwWorldReform(&world, "team", 3, 3, NULL));
    CHECK(world != old);
    CHECK_REFUSED("world", mwBarrier(old, NULL));
  }
  CHECK(sum_of_ones(world) == 3);
  CHECK(rank_in(world) == rank);
  CHECK_OK(mwWorldEpoch(world, &epoch));
  CHECK(epoch == 2);
  if (rank == 2) {
    int32_t done = 0;
    CHECK_OK(mwRecv(&done, 1, mwInt32, 0, world, NULL));
    CHECK_OK(mwRecv(&done, 1, mwInt32, 1, world, NULL));
    CHECK_OK(mwWorldAbort(world));
    return NULL;
  }
  CHECK_OK(mwSend(&rank, 1, mwInt32, 2, world, NULL));
  CHECK_RESULT(mwRemoteError, mwBarrier(world, NULL));
  if (rank == 0) {
    /* The callback has come along. */
    for (i = 0; i < 1000 && atomic_load(&events) < 1; ++i) usleep(10000);
    CHECK(atomic_load(&events) == 1);
  }
  CHECK_OK(mwWorldDestroy(world));
  return NULL;
}

static void reform(void) {
  Part parts[4] = {{0, 0}, {1, 0}, {2, 0}, {-1, 1}};
  pthread_t threads[4];
  mwWorld_t world = NULL;
  int i;
  NEED(pthread_barrier_init(&all_joined, NULL, 3) == 0);
  for (i = 0; i < 4; ++i) NEED(pthread_create(&threads[i], NULL, part, &parts[i]) == 0);
  for (i = 0; i < 4; ++i) NEED(pthread_join(threads[i], NULL) == 0);
  CHECK_REFUSED("name", mwWorldReform(&world, NULL, 1, 1, NULL));
}

static void on_all(int nranks, void (*body)(mwWorld_t world, int nranks, int rank)) {
  mwWorld_t worlds[RANKS];
  NEED(mwWorldInitAll(worlds, nranks, NULL) == mwSuccess);
  check_ranks(worlds, nranks, body);
}

int main(void) {
  pthread_t thread;
  setenv("MW_IFNAME", "lo", 0);
  on_all(RANKS, shrink);
  CHECK_OK(mwGetUniqueId(&meeting));
  NEED(pthread_create(&thread, NULL, newcomer, NULL) == 0);
  on_all(2, grow);
  NEED(pthread_join(thread, NULL) == 0);
  snprintf(store, sizeof store, "tcp://127.0.0.1:%d", 31000 + (int)(getpid() % 1500));
  reform();
  return check_report("reshape");
}
