/* Two worlds of the same processes, used from two threads at once.
 *
 * Every rank runs one thread per world. The threads never wait for each other, although they talk to the same
 * processes: "fast" does many small operations while "slow" is held up by a rank that takes its time.
 */
#define _DEFAULT_SOURCE
#include <pthread.h>

#include "common.h"

enum { RANKS = 3, COUNT = 256, FAST_STEPS = 2000, SLOW_STEPS = 5, SLOW_MS = 50 };

static int my_rank;

static void sum_up(mwWorld_t world, int step) {
  int64_t data[COUNT];
  for (int i = 0; i < COUNT; ++i) data[i] = step * my_rank + i;
  MW_CHECK(mwAllReduce(data, data, COUNT, mwInt64, mwSum, world, NULL));
  for (int i = 0; i < COUNT; ++i) REQUIRE(data[i] == step * (0 + 1 + 2) + RANKS * i);
}

static void* fast(void* unused) {
  mwWorld_t world;
  (void)unused;
  MW_CHECK(mwWorldInit(&world, "fast", RANKS, my_rank, NULL));
  for (int step = 0; step < FAST_STEPS; ++step) sum_up(world, step);
  MW_CHECK(mwWorldDestroy(world));
  return NULL;
}

static void* slow(void* unused) {
  mwWorld_t world;
  (void)unused;
  MW_CHECK(mwWorldInit(&world, "slow", RANKS, my_rank, NULL));
  for (int step = 0; step < SLOW_STEPS; ++step) {
    /* Ranks 1 and 2 sit in this world's AllReduce meanwhile, and yet go on in the other one. */
    if (my_rank == 0) sleep_ms(SLOW_MS);
    sum_up(world, step);
  }
  MW_CHECK(mwWorldDestroy(world));
  return NULL;
}

static void process(int number) {
  pthread_t threads[2];
  my_rank = number;
  REQUIRE(pthread_create(&threads[0], NULL, fast, NULL) == 0);
  REQUIRE(pthread_create(&threads[1], NULL, slow, NULL) == 0);
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
}

int main(void) { return run_ranks("two_worlds", RANKS, process, -1); }
