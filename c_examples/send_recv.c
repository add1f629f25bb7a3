/* Send and Recv: a leader talks to worker A in world1 and to worker B in world2. A dies; world2 does not notice.
 *
 *     process 0: leader, rank 0 of both worlds
 *     process 1: worker A, rank 1 of world1, killed after a while
 *     process 2: worker B, rank 1 of world2
 */
#define _DEFAULT_SOURCE
#include "common.h"

enum { COUNT = 1024, STEPS = 2000, DEATH = 200 };

/* The leader sends `step + i`, the worker answers with twice that. */
static mwResult_t ask(mwWorld_t world, int step) {
  int32_t question[COUNT], answer[COUNT];
  for (int i = 0; i < COUNT; ++i) question[i] = step + i;
  mwResult_t result = mwSend(question, COUNT, mwInt32, 1, world, NULL);
  if (result != mwSuccess) return result;
  result = mwRecv(answer, COUNT, mwInt32, 1, world, NULL);
  if (result != mwSuccess) return result;
  for (int i = 0; i < COUNT; ++i) REQUIRE(answer[i] == 2 * (step + i));
  return mwSuccess;
}

static void answer(mwWorld_t world) {
  int32_t data[COUNT];
  MW_CHECK(mwRecv(data, COUNT, mwInt32, 0, world, NULL));
  for (int i = 0; i < COUNT; ++i) data[i] *= 2;
  MW_CHECK(mwSend(data, COUNT, mwInt32, 0, world, NULL));
}

static void leader(void) {
  mwWorld_t world1, world2;
  mwResult_t result = mwSuccess;
  MW_CHECK(mwWorldInit(&world1, "world1", 2, 0, NULL));
  MW_CHECK(mwWorldInit(&world2, "world2", 2, 0, NULL));
  for (int step = 0; result == mwSuccess || step < STEPS; ++step) {
    if (result == mwSuccess) {
      result = ask(world1, step);
      if (result != mwSuccess) {
        /* A call on a broken world returns mwRemoteError, and the world says who it was. */
        printf("leader: world1 broke in step %d: %s\n", step, mwGetLastError(world1));
        REQUIRE(result == mwRemoteError);
        expect_failed_rank(world1, 1);
        MW_CHECK(mwWorldAbort(world1));
      }
    }
    /* world2 goes on as if nothing had happened. */
    if (step < STEPS) MW_CHECK(ask(world2, step));
  }
  MW_CHECK(mwWorldDestroy(world2));
}

static void worker_a(void) {
  mwWorld_t world;
  MW_CHECK(mwWorldInit(&world, "world1", 2, 1, NULL));
  for (int step = 0; step < DEATH; ++step) answer(world);
  raise(SIGKILL);
}

static void worker_b(void) {
  mwWorld_t world;
  MW_CHECK(mwWorldInit(&world, "world2", 2, 1, NULL));
  for (int step = 0; step < STEPS; ++step) answer(world);
  MW_CHECK(mwWorldDestroy(world));
}

static void process(int number) {
  if (number == 0) leader();
  else if (number == 1) worker_a();
  else worker_b();
}

int main(void) { return run_ranks("send_recv", 3, process, 1); }
