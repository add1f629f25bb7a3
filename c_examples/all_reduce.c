/* AllReduce: a leader works with two groups of workers, each in a world of its own.
 * One worker of world1 dies; world2 does not notice.
 *
 *     process 0:    leader, rank 0 of world1 and of world2
 *     process 1, 2: workers, rank 1 and 2 of world1; process 1 is killed after a while
 *     process 3, 4: workers, rank 1 and 2 of world2
 */
#define _DEFAULT_SOURCE
#include "common.h"

enum { RANKS = 3, COUNT = 1024, STEPS = 2000, DEATH = 200 };

/* Rank r contributes `step + i + r`; everybody gets the sum. */
static mwResult_t all_reduce(mwWorld_t world, int rank, int step) {
  float data[COUNT];
  for (int i = 0; i < COUNT; ++i) data[i] = (float)(step + i + rank);
  /* In place: the send buffer is the receive buffer. */
  mwResult_t result = mwAllReduce(data, data, COUNT, mwFloat32, mwSum, world, NULL);
  if (result != mwSuccess) return result;
  for (int i = 0; i < COUNT; ++i) REQUIRE(data[i] == (float)(RANKS * (step + i) + 0 + 1 + 2));
  return mwSuccess;
}

/* A call on a broken world returns mwRemoteError, and the world says who it was. */
static void give_up(mwWorld_t world, mwResult_t result) {
  REQUIRE(result == mwRemoteError);
  expect_failed_rank(world, 1);
  MW_CHECK(mwWorldAbort(world));
}

static void leader(void) {
  mwWorld_t world1, world2;
  mwResult_t result = mwSuccess;
  MW_CHECK(mwWorldInit(&world1, "world1", RANKS, 0, NULL));
  have_joined();
  MW_CHECK(mwWorldInit(&world2, "world2", RANKS, 0, NULL));
  for (int step = 0; result == mwSuccess || step < STEPS; ++step) {
    if (result == mwSuccess) {
      result = all_reduce(world1, 0, step);
      if (result != mwSuccess) {
        printf("leader: world1 broke in step %d: %s\n", step, mwGetLastError(world1));
        give_up(world1, result);
      }
    }
    /* world2 goes on as if nothing had happened. */
    if (step < STEPS) MW_CHECK(all_reduce(world2, 0, step));
  }
  MW_CHECK(mwWorldDestroy(world2));
}

static void worker_of_world1(int rank) {
  mwWorld_t world;
  mwResult_t result = mwSuccess;
  MW_CHECK(mwWorldInit(&world, "world1", RANKS, rank, NULL));
  have_joined();
  for (int step = 0; result == mwSuccess; ++step) {
    if (rank == 1 && step == DEATH) {
      wait_until_joined(RANKS);
      raise(SIGKILL);
    }
    result = all_reduce(world, rank, step);
  }
  give_up(world, result); /* The other worker learns of it just as the leader does. */
}

static void worker_of_world2(int rank) {
  mwWorld_t world;
  MW_CHECK(mwWorldInit(&world, "world2", RANKS, rank, NULL));
  for (int step = 0; step < STEPS; ++step) MW_CHECK(all_reduce(world, rank, step));
  MW_CHECK(mwWorldDestroy(world));
}

static void process(int number) {
  if (number == 0) leader();
  else if (number <= 2) worker_of_world1(number);
  else worker_of_world2(number - 2);
}

int main(void) { return run_ranks("all_reduce", 5, process, 1); }
