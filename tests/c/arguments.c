/* Every function with wrong arguments: it refuses, names the argument, and has no effect. */
#define _DEFAULT_SOURCE
#include "check.h"

/* A world of this one process, and one of two ranks that are never both in an operation here. */
static mwWorld_t alone, pair[2];

static void still_works(int line) {
  int32_t in = 20, out = 0;
  mwResult_t result = mwAllReduce(&in, &out, 1, mwInt32, mwSum, alone, NULL);
  check_that(result == mwSuccess && out == 20, __FILE__, line, "a good call after bad ones",
             mwGetLastError(NULL));
}
#define STILL_WORKS() still_works(__LINE__)

static void library(void) {
  int version = 0;
  CHECK_REFUSED("version", mwGetVersion(NULL));
  CHECK_OK(mwGetVersion(&version));
  CHECK(version == MW_VERSION_CODE);
  CHECK_REFUSED("id", mwGetUniqueId(NULL));
  static const mwResult_t results[] = {mwSuccess, mwUnhandledCudaError, mwSystemError, mwInternalError,
                                       mwInvalidArgument, mwInvalidUsage, mwRemoteError, mwInProgress,
                                       mwTimeout, mwRevoked, mwAborted, mwUnauthorized};
  for (size_t i = 0; i < sizeof results / sizeof results[0]; ++i) {
    const char* text = mwGetErrorString(results[i]);
    CHECK(text != NULL && text[0] != '\0');
    for (size_t j = 0; j < i; ++j) CHECK(strcmp(text, mwGetErrorString(results[j])) != 0);
  }
  CHECK(mwGetErrorString((mwResult_t)4711) != NULL);
  CHECK(mwGetErrorString((mwResult_t)-1) != NULL);
  CHECK(mwGetLastError(NULL) != NULL);
  CHECK(mwGetLastError(alone) != NULL);
}

/* Every function that takes a world, given one that is none. */
static void bad_world(mwWorld_t bad) {
  int32_t in[4] = {1, 2, 3, 4}, out[4] = {5, 6, 7, 8};
  int number = 77, count = 1;
  char name[MW_WORLD_NAME_BYTES] = "unchanged";
  uint64_t epoch = 77;
  mwWorldState_t state;
  mwResult_t error;
  mwWorldStats_t stats;
  mwWorld_t child = alone;
  mwRedOp_t op = mwSum;
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  CHECK(mwGetLastError(bad) != NULL);
  CHECK_REFUSED("world", mwWorldSplit(bad, 0, 0, &child, NULL));
  CHECK(child == NULL); /* The one effect that a failed split has. */
  CHECK_REFUSED("world", mwWorldRevoke(bad));
  CHECK_REFUSED("world", mwWorldAbort(bad));
  CHECK_REFUSED("world", mwWorldFinalize(bad));
  CHECK_REFUSED("world", mwWorldDestroy(bad));
  CHECK_REFUSED("world", mwWorldCount(bad, &number));
  CHECK_REFUSED("world", mwWorldUserRank(bad, &number));
  CHECK_REFUSED("world", mwWorldDevice(bad, &number));
  CHECK_REFUSED("world", mwWorldName(bad, name, sizeof name));
  CHECK_REFUSED("world", mwWorldEpoch(bad, &epoch));
  CHECK_REFUSED("world", mwWorldGetState(bad, &state));
  CHECK_REFUSED("world", mwWorldGetAsyncError(bad, &error));
  CHECK_REFUSED("world", mwWorldGetFailedRanks(bad, out, &count));
  CHECK_REFUSED("world", mwWorldGetStats(bad, &stats));
  CHECK_REFUSED("world", mwSend(in, 1, mwInt32, 0, bad, NULL));
  CHECK_REFUSED("world", mwRecv(out, 1, mwInt32, 0, bad, NULL));
  CHECK_REFUSED("world", mwBroadcast(in, out, 1, mwInt32, 0, bad, NULL));
  CHECK_REFUSED("world", mwReduce(in, out, 1, mwInt32, mwSum, 0, bad, NULL));
  CHECK_REFUSED("world", mwAllReduce(in, out, 1, mwInt32, mwSum, bad, NULL));
  CHECK_REFUSED("world", mwAllGather(in, out, 1, mwInt32, bad, NULL));
  CHECK_REFUSED("world", mwReduceScatter(in, out, 1, mwInt32, mwSum, bad, NULL));
  CHECK_REFUSED("world", mwAllToAll(in, out, 1, mwInt32, bad, NULL));
  CHECK_REFUSED("world", mwGather(in, out, 1, mwInt32, 0, bad, NULL));
  CHECK_REFUSED("world", mwScatter(in, out, 1, mwInt32, 0, bad, NULL));
  CHECK_REFUSED("world", mwBarrier(bad, NULL));
  CHECK_REFUSED("world", mwRedOpCreatePreMulSum(&op, in, mwInt32, mwScalarHostImmediate, bad));
  CHECK_REFUSED("world", mwRedOpDestroy(op, bad));
  CHECK_REFUSED("world", mwWorldSetCallback(bad, NULL, NULL));
  /* No effect at all. */
  CHECK(number == 77 && count == 1 && epoch == 77 && op == mwSum);
  CHECK(strcmp(name, "unchanged") == 0 && out[0] == 5);
  STILL_WORKS();
}

static void bad_request(mwRequest_t bad) {
  int done = 77, index = 77;
  CHECK_REFUSED("request", mwRequestTest(bad, &done));
  CHECK_REFUSED("request", mwRequestWait(bad, 0));
  CHECK_REFUSED("request", mwRequestFree(bad));
  if (bad != NULL) CHECK_REFUSED("requests", mwRequestWaitAny(1, &bad, &index, 0));
  CHECK(done == 77 && index == 77);
  STILL_WORKS();
}

/* A request that is done. */
static mwRequest_t new_request(void) {
  static int32_t in = 1, out;
  mwRequest_t request = NULL;
  NEED(mwGroupStart() == mwSuccess);
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, mwSum, alone, NULL));
  NEED(mwGroupSubmit(&request) == mwSuccess);
  CHECK_OK(mwRequestWait(request, -1));
  return request;
}

static void bad_handles(void) {
  /* Misaligned, if handles are addresses. */
  mwWorld_t beside = (mwWorld_t)((uintptr_t)alone ^ 1);
  long local[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  mwWorld_t destroyed, aborted;
  mwRequest_t request = new_request(), freed = new_request();
  CHECK_OK(mwRequestFree(freed));
  CHECK_OK(mwWorldInitAll(&destroyed, 1, NULL));
  CHECK_OK(mwWorldDestroy(destroyed));
  CHECK_OK(mwWorldInitAll(&aborted, 1, NULL));
  CHECK_OK(mwWorldAbort(aborted));

  bad_world(NULL);
  bad_world((mwWorld_t)local);
  bad_world((mwWorld_t)(uintptr_t)0xdeadbeef);
  bad_world((mwWorld_t)(UINTPTR_MAX - 7));
  if (beside != pair[0] && beside != pair[1]) bad_world(beside);
  bad_world((mwWorld_t)request);
  bad_world(destroyed);
  bad_world(aborted);

  bad_request(NULL);
  bad_request((mwRequest_t)local);
  bad_request((mwRequest_t)(uintptr_t)0xdeadbeef);
  bad_request((mwRequest_t)((uintptr_t)request ^ 1));
  bad_request((mwRequest_t)alone);
  bad_request(freed);
  CHECK_OK(mwRequestFree(request));
  bad_request(request);

  /* A handle of long ago is not mistaken for a new world, however many there were in between. */
  for (int i = 0; i < 20; ++i) {
    mwWorld_t world;
    int count;
    CHECK_OK(mwWorldInitAll(&world, 1, NULL));
    CHECK_REFUSED("world", mwWorldCount(destroyed, &count));
    CHECK_OK(mwWorldDestroy(world));
  }
}

/* Refused, and the handle is NULL, which is the one effect that a failed join has. */
#define NOT_JOINED(handle, argument, call) \
  do {                                     \
    (handle) = alone;                      \
    CHECK_REFUSED(argument, call);         \
    CHECK((handle) == NULL);               \
  } while (0)

static void joining(void) {
  mwWorld_t world = alone, many[2] = {alone, alone};
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  mwUniqueId id;
  char name[MW_WORLD_NAME_BYTES + 1];
  memset(name, 'x', sizeof name);
  name[MW_WORLD_NAME_BYTES] = '\0';
  CHECK_REFUSED("world", mwWorldInit(NULL, "name", 1, 0, NULL));
  NOT_JOINED(world, "name", mwWorldInit(&world, NULL, 1, 0, NULL));
  NOT_JOINED(world, "name", mwWorldInit(&world, "", 1, 0, NULL));
  NOT_JOINED(world, "name", mwWorldInit(&world, name, 1, 0, NULL));
  NOT_JOINED(world, "nranks", mwWorldInit(&world, "name", 0, 0, NULL));
  NOT_JOINED(world, "nranks", mwWorldInit(&world, "name", -1, 0, NULL));
  NOT_JOINED(world, "rank", mwWorldInit(&world, "name", 2, -1, NULL));
  NOT_JOINED(world, "rank", mwWorldInit(&world, "name", 2, 2, NULL));

  memset(&id, 0, sizeof id);
  NOT_JOINED(world, "id", mwWorldInitRank(&world, 1, id, 0, NULL));
  memset(&id, 0xff, sizeof id);
  NOT_JOINED(world, "id", mwWorldInitRank(&world, 1, id, 0, NULL));
  CHECK_OK(mwGetUniqueId(&id));
  CHECK_REFUSED("world", mwWorldInitRank(NULL, 1, id, 0, NULL));
  NOT_JOINED(world, "nranks", mwWorldInitRank(&world, 0, id, 0, NULL));
  NOT_JOINED(world, "rank", mwWorldInitRank(&world, 1, id, -1, NULL));
  NOT_JOINED(world, "rank", mwWorldInitRank(&world, 1, id, 1, NULL));

  CHECK_REFUSED("worlds", mwWorldInitAll(NULL, 1, NULL));
  CHECK_REFUSED("nranks", mwWorldInitAll(many, 0, NULL));
  CHECK_REFUSED("nranks", mwWorldInitAll(many, -2, NULL));
  CHECK(many[0] == alone && many[1] == alone); /* No ranks, no handles. */

  config.size = 3;
  NOT_JOINED(many[0], "size", mwWorldInitAll(many, 1, &config));
  config.size = sizeof config;
  config.magic = 0x12345678;
  NOT_JOINED(many[0], "magic", mwWorldInitAll(many, 1, &config));
  config.magic = MW_CONFIG_MAGIC;
  config.transport = "pigeon";
  NOT_JOINED(many[0], "transport", mwWorldInitAll(many, 1, &config));
  config.transport = NULL;
  config.store = "pigeon://roof";
  NOT_JOINED(world, "store", mwWorldInit(&world, "name", 1, 0, &config));
  config.store = NULL;
  config.timeoutMs = -5;
  NOT_JOINED(many[0], "timeoutMs", mwWorldInitAll(many, 1, &config));
  config.timeoutMs = MW_CONFIG_UNDEF_INT;
  config.joinTimeoutMs = -5;
  NOT_JOINED(many[0], "joinTimeoutMs", mwWorldInitAll(many, 1, &config));
  config.joinTimeoutMs = MW_CONFIG_UNDEF_INT;
  config.heartbeatIntervalMs = 0;
  NOT_JOINED(many[0], "heartbeatIntervalMs", mwWorldInitAll(many, 1, &config));
  config.heartbeatIntervalMs = MW_CONFIG_UNDEF_INT;
  config.heartbeatTimeoutMs = -1;
  NOT_JOINED(many[0], "heartbeatTimeoutMs", mwWorldInitAll(many, 1, &config));

  CHECK(many[1] == alone); /* Not one of the one rank. */
  NOT_JOINED(many[1], "heartbeatTimeoutMs", mwWorldInitAll(many, 2, &config));

  CHECK_REFUSED("newworld", mwWorldSplit(alone, 0, 0, NULL, NULL));
  NOT_JOINED(world, "color", mwWorldSplit(alone, -7, 0, &world, NULL));
  STILL_WORKS();
}

static void queries(void) {
  mwWorldStats_t stats;
  int ranks[2], count;
  char name[MW_WORLD_NAME_BYTES];
  CHECK_REFUSED("count", mwWorldCount(alone, NULL));
  CHECK_REFUSED("rank", mwWorldUserRank(alone, NULL));
  CHECK_REFUSED("device", mwWorldDevice(alone, NULL));
  CHECK_REFUSED("name", mwWorldName(alone, NULL, 64));
  CHECK_REFUSED("size", mwWorldName(alone, name, 0));
  CHECK_REFUSED("epoch", mwWorldEpoch(alone, NULL));
  CHECK_REFUSED("state", mwWorldGetState(alone, NULL));
  CHECK_REFUSED("asyncError", mwWorldGetAsyncError(alone, NULL));
  CHECK_REFUSED("count", mwWorldGetFailedRanks(alone, ranks, NULL));
  count = 2;
  CHECK_REFUSED("ranks", mwWorldGetFailedRanks(alone, NULL, &count));
  count = -1;
  CHECK_REFUSED("count", mwWorldGetFailedRanks(alone, ranks, &count));
  CHECK_REFUSED("stats", mwWorldGetStats(alone, NULL));
  memset(&stats, 0, sizeof stats);
  CHECK_REFUSED("size", mwWorldGetStats(alone, &stats));
  CHECK_REFUSED("fd", mwEventFd(NULL));
  CHECK_REFUSED("event", mwEventNext(NULL, 0));
  CHECK_OK(mwWorldSetCallback(alone, NULL, NULL));
  STILL_WORKS();
}

static void types_and_operators(mwDataType_t bad_type, mwRedOp_t bad_op) {
  int32_t in[4] = {1, 2, 3, 4}, out[4];
  mwRedOp_t op;
  CHECK_REFUSED("datatype", mwSend(in, 1, bad_type, 1, pair[0], NULL));
  CHECK_REFUSED("datatype", mwRecv(out, 1, bad_type, 1, pair[0], NULL));
  CHECK_REFUSED("datatype", mwBroadcast(in, out, 1, bad_type, 0, alone, NULL));
  CHECK_REFUSED("datatype", mwReduce(in, out, 1, bad_type, mwSum, 0, alone, NULL));
  CHECK_REFUSED("datatype", mwAllReduce(in, out, 1, bad_type, mwSum, alone, NULL));
  CHECK_REFUSED("datatype", mwAllGather(in, out, 1, bad_type, alone, NULL));
  CHECK_REFUSED("datatype", mwReduceScatter(in, out, 1, bad_type, mwSum, alone, NULL));
  CHECK_REFUSED("datatype", mwAllToAll(in, out, 1, bad_type, alone, NULL));
  CHECK_REFUSED("datatype", mwGather(in, out, 1, bad_type, 0, alone, NULL));
  CHECK_REFUSED("datatype", mwScatter(in, out, 1, bad_type, 0, alone, NULL));
  CHECK_REFUSED("datatype", mwRedOpCreatePreMulSum(&op, in, bad_type, mwScalarHostImmediate, alone));
  CHECK_REFUSED("op", mwReduce(in, out, 1, mwInt32, bad_op, 0, alone, NULL));
  CHECK_REFUSED("op", mwAllReduce(in, out, 1, mwInt32, bad_op, alone, NULL));
  CHECK_REFUSED("op", mwReduceScatter(in, out, 1, mwInt32, bad_op, alone, NULL));
  CHECK_REFUSED("op", mwRedOpDestroy(bad_op, alone));
  STILL_WORKS();
}

static void operators(void) {
  int32_t two = 2, in = 3, out = 0;
  mwRedOp_t op;
  CHECK_REFUSED("op", mwRedOpCreatePreMulSum(NULL, &two, mwInt32, mwScalarHostImmediate, alone));
  CHECK_REFUSED("scalar", mwRedOpCreatePreMulSum(&op, NULL, mwInt32, mwScalarHostImmediate, alone));
  CHECK_REFUSED("residence", mwRedOpCreatePreMulSum(&op, &two, mwInt32, (mwScalarResidence_t)9, alone));
  CHECK_REFUSED("op", mwRedOpDestroy(mwSum, alone)); /* built in */
  CHECK_OK(mwRedOpCreatePreMulSum(&op, &two, mwInt32, mwScalarHostImmediate, alone));
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, op, alone, NULL));
  CHECK(out == 6);
  CHECK_RESULT(mwInvalidArgument, mwAllReduce(&in, &out, 1, mwUint8, op, alone, NULL)); /* of another type */
  CHECK_REFUSED("op", mwAllReduce(&in, &out, 1, mwInt32, op, pair[0], NULL));           /* of another world */
  CHECK_OK(mwRedOpDestroy(op, alone));
  CHECK_REFUSED("op", mwRedOpDestroy(op, alone));
  CHECK_REFUSED("op", mwAllReduce(&in, &out, 1, mwInt32, op, alone, NULL));
  STILL_WORKS();
}

static void ranks(int bad) {
  int32_t in[4] = {1, 2, 3, 4}, out[4];
  CHECK_REFUSED("peer", mwSend(in, 1, mwInt32, bad, pair[0], NULL));
  CHECK_REFUSED("peer", mwRecv(out, 1, mwInt32, bad, pair[0], NULL));
  CHECK_REFUSED("root", mwBroadcast(in, out, 1, mwInt32, bad, pair[0], NULL));
  CHECK_REFUSED("root", mwReduce(in, out, 1, mwInt32, mwSum, bad, pair[0], NULL));
  CHECK_REFUSED("root", mwGather(in, out, 1, mwInt32, bad, pair[0], NULL));
  CHECK_REFUSED("root", mwScatter(in, out, 1, mwInt32, bad, pair[0], NULL));
  STILL_WORKS();
}

/* So many elements that their bytes, or the bytes of all ranks together, do not fit into an address space. */
static void counts(size_t count) {
  double in[4] = {1, 2, 3, 4}, out[4];
  CHECK_REFUSED("count", mwSend(in, count, mwFloat64, 1, pair[0], NULL));
  CHECK_REFUSED("count", mwRecv(out, count, mwFloat64, 1, pair[0], NULL));
  CHECK_REFUSED("count", mwBroadcast(in, out, count, mwFloat64, 0, pair[0], NULL));
  CHECK_REFUSED("count", mwReduce(in, out, count, mwFloat64, mwSum, 0, pair[0], NULL));
  CHECK_REFUSED("count", mwAllReduce(in, out, count, mwFloat64, mwSum, pair[0], NULL));
  CHECK_REFUSED("sendcount", mwAllGather(in, out, count, mwFloat64, pair[0], NULL));
  CHECK_REFUSED("recvcount", mwReduceScatter(in, out, count, mwFloat64, mwSum, pair[0], NULL));
  CHECK_REFUSED("count", mwAllToAll(in, out, count, mwFloat64, pair[0], NULL));
  CHECK_REFUSED("count", mwGather(in, out, count, mwFloat64, 0, pair[0], NULL));
  CHECK_REFUSED("count", mwScatter(in, out, count, mwFloat64, 0, pair[0], NULL));
  STILL_WORKS();
}

static void buffers(void) {
  int32_t in[4] = {1, 2, 3, 4}, out[4];
  CHECK_REFUSED("sendbuff", mwSend(NULL, 1, mwInt32, 1, pair[0], NULL));
  CHECK_REFUSED("recvbuff", mwRecv(NULL, 1, mwInt32, 1, pair[0], NULL));
  CHECK_REFUSED("sendbuff", mwBroadcast(NULL, out, 1, mwInt32, 0, alone, NULL));
  CHECK_REFUSED("recvbuff", mwBroadcast(in, NULL, 1, mwInt32, 0, alone, NULL));
  CHECK_REFUSED("sendbuff", mwReduce(NULL, out, 1, mwInt32, mwSum, 0, alone, NULL));
  CHECK_REFUSED("recvbuff", mwReduce(in, NULL, 1, mwInt32, mwSum, 0, alone, NULL));
  CHECK_REFUSED("sendbuff", mwAllReduce(NULL, out, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("recvbuff", mwAllReduce(in, NULL, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("sendbuff", mwAllGather(NULL, out, 1, mwInt32, alone, NULL));
  CHECK_REFUSED("recvbuff", mwAllGather(in, NULL, 1, mwInt32, alone, NULL));
  CHECK_REFUSED("sendbuff", mwReduceScatter(NULL, out, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("recvbuff", mwReduceScatter(in, NULL, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("sendbuff", mwAllToAll(NULL, out, 1, mwInt32, alone, NULL));
  CHECK_REFUSED("recvbuff", mwAllToAll(in, NULL, 1, mwInt32, alone, NULL));
  CHECK_REFUSED("sendbuff", mwGather(NULL, out, 1, mwInt32, 0, alone, NULL));
  CHECK_REFUSED("recvbuff", mwGather(in, NULL, 1, mwInt32, 0, alone, NULL));
  CHECK_REFUSED("sendbuff", mwScatter(NULL, out, 1, mwInt32, 0, alone, NULL));
  CHECK_REFUSED("recvbuff", mwScatter(in, NULL, 1, mwInt32, 0, alone, NULL));
  STILL_WORKS();

  /* Nothing needs no buffer. */
  CHECK_OK(mwBroadcast(NULL, NULL, 0, mwInt32, 0, alone, NULL));
  CHECK_OK(mwReduce(NULL, NULL, 0, mwInt32, mwSum, 0, alone, NULL));
  CHECK_OK(mwAllReduce(NULL, NULL, 0, mwInt32, mwSum, alone, NULL));
  CHECK_OK(mwAllGather(NULL, NULL, 0, mwInt32, alone, NULL));
  CHECK_OK(mwReduceScatter(NULL, NULL, 0, mwInt32, mwSum, alone, NULL));
  CHECK_OK(mwAllToAll(NULL, NULL, 0, mwInt32, alone, NULL));
  CHECK_OK(mwGather(NULL, NULL, 0, mwInt32, 0, alone, NULL));
  CHECK_OK(mwScatter(NULL, NULL, 0, mwInt32, 0, alone, NULL));
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwSend(NULL, 0, mwInt32, 0, alone, NULL));
  CHECK_OK(mwRecv(NULL, 0, mwInt32, 0, alone, NULL));
  CHECK_OK(mwGroupEnd());
  STILL_WORKS();
}

static void groups(void) {
  int32_t in = 5, out = 0;
  mwRequest_t request = new_request(), list[2] = {NULL, NULL};
  mwWorld_t none = alone;
  int index = -1;
  CHECK_RESULT(mwInvalidUsage, mwGroupEnd());
  CHECK_RESULT(mwInvalidUsage, mwGroupSubmit(&list[0]));
  CHECK(list[0] == NULL);
  STILL_WORKS();

  /* A bad call within a group is refused on the spot, and then the group as a whole: nothing of it is started. */
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("peer", mwSend(&in, 1, mwInt32, 9, alone, NULL));
  CHECK_REFUSED("world", mwBarrier(NULL, NULL));
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, mwSum, alone, NULL));
  CHECK_REFUSED("peer", mwGroupEnd()); /* the first error */
  CHECK(out == 0);
  CHECK_RESULT(mwInvalidUsage, mwGroupEnd()); /* closed all the same */
  STILL_WORKS();

  /* The same for mwGroupSubmit, from within an inner group. */
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwGroupStart());
  CHECK_REFUSED("datatype", mwAllReduce(&in, &out, 1, mwNumTypes, mwSum, alone, NULL));
  CHECK_OK(mwGroupEnd());
  CHECK_OK(mwAllReduce(&in, &out, 1, mwInt32, mwSum, alone, NULL));
  list[0] = request;
  CHECK_REFUSED("datatype", mwGroupSubmit(&list[0]));
  CHECK(list[0] == NULL && out == 0);
  CHECK_RESULT(mwInvalidUsage, mwGroupEnd());
  STILL_WORKS();

  /* What is no operation has no place in a group, but does not spoil it. */
  CHECK_OK(mwGroupStart());
  CHECK_RESULT(mwInvalidUsage, mwWorldDestroy(alone));
  CHECK_RESULT(mwInvalidUsage, mwWorldInitAll(&none, 1, NULL));
  CHECK(none == NULL);
  CHECK_REFUSED("request", mwGroupSubmit(NULL));
  CHECK_OK(mwSend(&in, 1, mwInt32, 0, alone, NULL));
  CHECK_OK(mwRecv(&out, 1, mwInt32, 0, alone, NULL));
  CHECK_OK(mwGroupEnd());
  CHECK(out == 5);

  CHECK_REFUSED("done", mwRequestTest(request, NULL));
  CHECK_REFUSED("count", mwRequestWaitAny(-1, &request, &index, 0));
  CHECK_REFUSED("requests", mwRequestWaitAny(1, NULL, &index, 0));
  CHECK_REFUSED("index", mwRequestWaitAny(1, &request, NULL, 0));
  list[1] = request;
  CHECK_OK(mwRequestWaitAny(2, list, &index, 0));
  CHECK(index == 1);
  CHECK_OK(mwRequestFree(request));
  STILL_WORKS();
}

int main(void) {
  static const int bad_types[] = {-1, mwNumTypes, 1000, INT_MAX};
  static const int bad_ops[] = {-1, mwNumOps, 1000, mwMaxRedOp};
  static const int bad_ranks[] = {-1, 2, 1000, INT_MIN, INT_MAX};
  NEED(mwWorldInitAll(&alone, 1, NULL) == mwSuccess);
  NEED(mwWorldInitAll(pair, 2, NULL) == mwSuccess);
  library();
  bad_handles();
  joining();
  queries();
  for (int i = 0; i < 4; ++i) types_and_operators((mwDataType_t)bad_types[i], (mwRedOp_t)bad_ops[i]);
  operators();
  for (int i = 0; i < 5; ++i) ranks(bad_ranks[i]);
  counts(SIZE_MAX);
  counts(SIZE_MAX / 2);
  counts(SIZE_MAX / 8 + 1);
  buffers();
  groups();
  check_ranks(pair, 2, check_destroy);
  CHECK_OK(mwWorldDestroy(alone));
  return check_report("arguments");
}
