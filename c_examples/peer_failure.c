/* Everyone learns: rank 2 of a world of four is killed, and all three survivors get the same answer.
 *
 * Rank 0 waits for a message of the victim, rank 1 for a message of rank 0, which is not coming either, and
 * rank 3 is busy with something else and only asks. Each prints how long after the kill it knew.
 */
#define _DEFAULT_SOURCE
#include "common.h"

enum { RANKS = 4, VICTIM = 2, BUSY_MS = 100 };

/* Where the victim leaves the time of its death. */
enum { KILLED_AT };

static void survivor(mwWorld_t world, int rank) {
  int32_t value = 0;
  mwResult_t result;
  if (rank == 3) {
    /* Nothing pending here: the watchdog finds out by itself. */
    uint64_t deadline = now_ns() + 10000000000u;
    do {
      sleep_ms(1);
      MW_CHECK(mwWorldGetAsyncError(world, &result));
    } while (result == mwSuccess && now_ns() < deadline);
  } else {
    result = mwRecv(&value, 1, mwInt32, rank == 0 ? VICTIM : 0, world, NULL);
  }
  uint64_t known = now_ns();
  REQUIRE(result == mwRemoteError);
  printf("rank %d knew after %.2f ms: %s\n", rank, (double)(known - shared_words[KILLED_AT]) / 1e6,
         mwGetLastError(world));
  expect_failed_rank(world, VICTIM);

  /* Whatever is called later says the same, at once. */
  MW_EXPECT(mwRemoteError, mwBarrier(world, NULL));
  expect_failed_rank(world, VICTIM);
  MW_CHECK(mwWorldAbort(world));
}

static void process(int rank) {
  mwWorld_t world;
  MW_CHECK(mwWorldInit(&world, "four", RANKS, rank, NULL));
  have_joined();
  if (rank == VICTIM) {
    wait_until_joined(RANKS);
    sleep_ms(BUSY_MS); /* Let the others get into their calls. */
    shared_words[KILLED_AT] = now_ns();
    raise(SIGKILL);
  }
  survivor(world, rank);
}

int main(void) { return run_ranks("peer_failure", RANKS, process, VICTIM); }
