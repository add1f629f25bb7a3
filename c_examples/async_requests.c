/* Requests: operations that run while the program does something else.
 *
 * What is posted between mwGroupStart and mwGroupSubmit becomes one request. Nothing blocks; buffers stay
 * untouched until the request is done. The leader asks two workers at once, takes the answers as they come,
 * and then lets a group span both worlds while one of them breaks.
 *
 *     process 0: leader, rank 0 of both worlds
 *     process 1: worker of world1, answers at once, killed later
 *     process 2: worker of world2, takes its time
 */
#define _DEFAULT_SOURCE
#include "common.h"

enum { COUNT = 4096, STEPS = 20, SLOW_MS = 5, STOP = -1 };

/* Sends `question` and receives the answer, all in one request. */
static mwRequest_t ask(mwWorld_t world, const int32_t* question, int32_t* answer) {
  mwRequest_t request;
  MW_CHECK(mwGroupStart());
  MW_CHECK(mwSend(question, COUNT, mwInt32, 1, world, NULL));
  MW_CHECK(mwRecv(answer, COUNT, mwInt32, 1, world, NULL));
  MW_CHECK(mwGroupSubmit(&request));
  return request;
}

static void fill(int32_t* data, int value) {
  for (int i = 0; i < COUNT; ++i) data[i] = value;
}

/* Waits for two requests in whatever order they are done. */
static void both(mwWorld_t world1, mwWorld_t world2, int step) {
  static int32_t question[COUNT], answers[2][COUNT];
  mwRequest_t requests[2];
  fill(question, step);
  requests[0] = ask(world1, question, answers[0]);
  requests[1] = ask(world2, question, answers[1]);
  for (int left = 2; left > 0;) {
    int index = -1;
    mwResult_t result = mwRequestWaitAny(2, requests, &index, 1);
    if (result == mwInProgress) continue; /* Time for something else: the operations go on by themselves. */
    REQUIRE(result == mwSuccess);
    for (int i = 0; i < COUNT; ++i) REQUIRE(answers[index][i] == 2 * step);
    MW_CHECK(mwRequestFree(requests[index]));
    requests[index] = NULL; /* NULL entries are skipped. */
    --left;
  }
}

static void leader(void) {
  static int32_t question[COUNT], answer[COUNT], stop[COUNT], never[COUNT];
  mwWorld_t world1, world2;
  mwRequest_t request;
  int done = 0;
  MW_CHECK(mwWorldInit(&world1, "world1", 2, 0, NULL));
  MW_CHECK(mwWorldInit(&world2, "world2", 2, 0, NULL));

  for (int step = 0; step < STEPS; ++step) both(world1, world2, step);

  /* mwRequestTest never blocks, mwRequestWait gives up when its time is over; both can be asked again. */
  MW_CHECK(mwGroupStart());
  MW_CHECK(mwRecv(answer, COUNT, mwInt32, 1, world2, NULL));
  MW_CHECK(mwGroupSubmit(&request));
  MW_EXPECT(mwInProgress, mwRequestWait(request, 1)); /* No answer without a question. */
  fill(question, 7);
  MW_CHECK(mwSend(question, COUNT, mwInt32, 1, world2, NULL));
  while (!done) MW_CHECK(mwRequestTest(request, &done));
  REQUIRE(answer[0] == 14);
  MW_CHECK(mwRequestWait(request, -1));
  MW_CHECK(mwRequestFree(request));

  /* A group across both worlds, while world1's worker dies of what it is told: the request reports that, but
   * the part that belongs to world2 completes. */
  fill(stop, STOP);
  fill(question, 21);
  fill(answer, 0);
  MW_CHECK(mwGroupStart());
  MW_CHECK(mwSend(stop, COUNT, mwInt32, 1, world1, NULL));
  MW_CHECK(mwRecv(never, COUNT, mwInt32, 1, world1, NULL));
  MW_CHECK(mwSend(question, COUNT, mwInt32, 1, world2, NULL));
  MW_CHECK(mwRecv(answer, COUNT, mwInt32, 1, world2, NULL));
  MW_CHECK(mwGroupSubmit(&request));
  MW_EXPECT(mwRemoteError, mwRequestWait(request, -1));
  for (int i = 0; i < COUNT; ++i) REQUIRE(answer[i] == 42);
  MW_CHECK(mwRequestFree(request));
  expect_failed_rank(world1, 1);
  MW_CHECK(mwWorldAbort(world1));

  MW_CHECK(mwSend(stop, COUNT, mwInt32, 1, world2, NULL));
  MW_CHECK(mwWorldDestroy(world2));
}

static void worker(const char* name, int delay_ms, int dies) {
  static int32_t data[COUNT];
  mwWorld_t world;
  MW_CHECK(mwWorldInit(&world, name, 2, 1, NULL));
  for (;;) {
    MW_CHECK(mwRecv(data, COUNT, mwInt32, 0, world, NULL));
    if (data[0] == STOP) break;
    sleep_ms(delay_ms);
    for (int i = 0; i < COUNT; ++i) data[i] *= 2;
    MW_CHECK(mwSend(data, COUNT, mwInt32, 0, world, NULL));
  }
  if (dies) raise(SIGKILL);
  MW_CHECK(mwWorldDestroy(world));
}

static void process(int number) {
  if (number == 0) leader();
  else if (number == 1) worker("world1", 0, 1);
  else worker("world2", SLOW_MS, 0);
}

int main(void) { return run_ranks("async_requests", 3, process, 1); }
