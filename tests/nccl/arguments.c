/* What is wrong is an error with a sentence, and nothing else. One rank. */
#include "ranks.h"

#define SAYS(text) CHECK(strstr(ncclGetLastError(NULL), text) != NULL)

static void handles(ncclComm_t comm) {
  int count;
  ncclResult_t state;
  ncclUniqueId id;
  ncclComm_t garbage = (ncclComm_t)(uintptr_t)0x1234, twin = comm;
  REFUSED(ncclCommCount(NULL, &count));
  SAYS("comm: NULL");
  REFUSED(ncclCommCount(garbage, &count));
  SAYS("comm: 0x1234 is no handle");
  REFUSED(ncclCommDestroy(garbage));
  REFUSED(ncclCommAbort(NULL));
  REFUSED(ncclCommCount((ncclComm_t)&count, &count));
  REFUSED(ncclCommCount(comm, NULL));
  SAYS("count: NULL");
  REFUSED(ncclGetUniqueId(NULL));
  OK(ncclGetUniqueId(&id));
  REFUSED(ncclCommInitRank(NULL, 1, id, 0));
  OK(ncclCommDestroy(comm));
  REFUSED(ncclCommDestroy(comm));
  SAYS("no communicator any more");
  REFUSED(ncclCommAbort(comm));
  REFUSED(ncclCommGetAsyncError(twin, &state));
  REFUSED(ncclAllReduce(&count, &count, 1, ncclInt32, ncclSum, comm, NULL));
  OK(ncclCommInitRank(&comm, 1, id, 0));
  OK(ncclCommAbort(comm));
  REFUSED(ncclCommAbort(comm));
  REFUSED(ncclCommDestroy(comm));
}

static void operations(ncclComm_t comm) {
  int x = 1, y = 0;
  ncclRedOp_t op;
  REFUSED(ncclAllReduce(NULL, &y, 1, ncclInt32, ncclSum, comm, NULL));
  SAYS("sendbuff: NULL");
  REFUSED(ncclAllReduce(&x, NULL, 1, ncclInt32, ncclSum, comm, NULL));
  OK(ncclAllReduce(NULL, NULL, 0, ncclInt32, ncclSum, comm, NULL));
  REFUSED(ncclAllReduce(&x, &y, 1, (ncclDataType_t)99, ncclSum, comm, NULL));
  SAYS("datatype: 99");
  REFUSED(ncclAllReduce(&x, &y, 1, ncclInt32, (ncclRedOp_t)4711, comm, NULL));
  SAYS("op: 4711");
  REFUSED(ncclAllReduce(&x, &y, (size_t)-1, ncclInt32, ncclSum, comm, NULL));
  REFUSED(ncclBroadcast(&x, &y, 1, ncclInt32, 1, comm, NULL));
  SAYS("root: 1");
  REFUSED(ncclSend(&x, 1, ncclInt32, -1, comm, NULL));
  SAYS("peer: -1");
  REFUSED(ncclRedOpCreatePreMulSum(&op, NULL, ncclInt32, ncclScalarHostImmediate, comm));
  REFUSED(ncclRedOpDestroy(ncclSum, comm));
  CHECK(y == 0);
  OK(ncclAllReduce(&x, &y, 1, ncclInt32, ncclSum, comm, NULL));
  CHECK(y == 1);
}

static void groups(ncclComm_t comm) {
  int x = 1, y = 0;
  ncclComm_t made = comm;
  ncclUniqueId id;
  memset(&id, 3, sizeof id);
  IS(ncclGroupEnd(), ncclInvalidUsage);
  /* An error in a group is the group's, and nothing of it happens. */
  OK(ncclGroupStart());
  OK(ncclAllReduce(&x, &y, 1, ncclInt32, ncclSum, comm, NULL));
  REFUSED(ncclAllReduce(&x, &y, 1, (ncclDataType_t)99, ncclSum, comm, NULL));
  REFUSED(ncclGroupEnd());
  SAYS("datatype: 99");
  CHECK(y == 0);
  /* A genuine NCCL takes an id that nobody watches. */
  if (strcmp(getenv("MW_BACKEND"), "nccl") != 0) {
    OK(ncclGroupStart());
    REFUSED(ncclCommInitRank(&made, 1, id, 0));
    REFUSED(ncclGroupEnd());
    CHECK(made == NULL);
    SAYS("does not stand in for");
  }
  /* Given up before it was made: nobody waits for it. */
  OK(ncclGetUniqueId(&id));
  OK(ncclGroupStart());
  OK(ncclCommInitRank(&made, 1, id, 0));
  OK(ncclCommDestroy(made));
  REFUSED(ncclCommDestroy(made));
  OK(ncclGroupEnd());
  /* What was handed out before the error is taken back. */
  OK(ncclGetUniqueId(&id));
  OK(ncclGroupStart());
  OK(ncclCommInitRank(&made, 1, id, 0));
  CHECK(made != NULL);
  REFUSED(ncclSend(&x, 1, ncclInt32, 5, comm, NULL));
  REFUSED(ncclGroupEnd());
  CHECK(made == NULL);
}

static void creation(ncclComm_t comm) {
  ncclComm_t made = comm;
  ncclUniqueId id, foreign;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  memset(&foreign, 9, sizeof foreign);
  OK(ncclGetUniqueId(&id));
  if (strcmp(getenv("MW_BACKEND"), "nccl") != 0) {
    for (int i = 0; i < 40; i++) CHECK(id.internal[i] == 0);
    REFUSED(ncclCommInitRank(&made, 1, foreign, 0));
    SAYS("does not stand in for");
    CHECK(made == NULL);
  }
  REFUSED(ncclCommInitRank(&made, 0, id, 0));
  REFUSED(ncclCommInitRank(&made, 1, id, 1));
  REFUSED(ncclCommInitRank(&made, 1, id, -1));
  config.magic = 5;
  REFUSED(ncclCommInitRankConfig(&made, 1, id, 0, &config));
  SAYS("config: magic");
  config.magic = NCCL_API_MAGIC;
  config.size = 3;
  REFUSED(ncclCommInitRankConfig(&made, 1, id, 0, &config));
  config.size = sizeof config;
  config.blocking = 2;
  REFUSED(ncclCommInitRankConfig(&made, 1, id, 0, &config));
  config.blocking = 1;
  OK(ncclCommInitRankConfig(&made, 1, id, 0, &config));
  works(made, 1, 0);
  OK(ncclCommDestroy(made));
  REFUSED(ncclCommSplit(comm, -2, 0, &made, NULL));
  OK(ncclCommSplit(comm, NCCL_SPLIT_NOCOLOR, 0, &made, NULL));
  CHECK(made == NULL);
  int other = 7;
  REFUSED(ncclCommShrink(comm, NULL, 1, &made, NULL, NCCL_SHRINK_DEFAULT));
  REFUSED(ncclCommShrink(comm, &other, 1, &made, NULL, NCCL_SHRINK_DEFAULT));
  REFUSED(ncclCommShrink(comm, &other, 0, &made, NULL, NCCL_SHRINK_DEFAULT));
  REFUSED(ncclCommGrow(comm, 1, &id, -1, &made, NULL));
  REFUSED(ncclCommGrow(comm, 2, &id, 1, &made, NULL));
  REFUSED(ncclCommGrow(NULL, 2, NULL, 1, &made, NULL));
  REFUSED(ncclCommInitAll(NULL, 1, NULL));
  REFUSED(ncclCommInitAll(&made, 0, NULL));
  REFUSED(ncclCommRevoke(comm, 5));
}

static void parameters(void) {
  ncclParamHandle_t handle = NULL, again = NULL;
  const char *text = NULL, **keys = NULL;
  int32_t value = 0;
  int length = 0;
  REFUSED(ncclParamBind(&handle, "NCCL_SURELY_NOT_SET"));
  REFUSED(ncclParamBind(&handle, "HOME"));
  REFUSED(ncclParamBind(&handle, NULL));
  CHECK(setenv("NCCL_NTHREADS", "256", 1) == 0);
  OK(ncclParamBind(&handle, "NCCL_NTHREADS"));
  OK(ncclParamBind(&again, "NCCL_NTHREADS"));
  CHECK(handle != NULL && handle == again);
  OK(ncclParamGetI32(handle, &value));
  CHECK(value == 256);
  OK(ncclParamGetStr(handle, &text));
  CHECK(strcmp(text, "256") == 0);
  OK(ncclParamGetParameter("NCCL_NTHREADS", &text, &length));
  CHECK(strcmp(text, "256") == 0 && length == 3);
  OK(ncclParamGetAllParameterKeys(&keys, &length));
  int found = 0;
  for (int i = 0; i < length; i++) found += strcmp(keys[i], "NCCL_NTHREADS") == 0;
  CHECK(found == 1);
  CHECK(setenv("NCCL_NTHREADS", "many", 1) == 0);
  REFUSED(ncclParamGetI32(handle, &value));
  REFUSED(ncclParamGetI32(NULL, &value));
}

int main(void) {
  start();
  ncclComm_t comm;
  CHECK(strlen(ncclGetLastError(NULL)) == 0);
  for (int i = 0; i < 12; i++) CHECK(strlen(ncclGetErrorString((ncclResult_t)i)) > 0);
  OK(ncclCommInitAll(&comm, 1, NULL));
  operations(comm);
  groups(comm);
  creation(comm);
  /* A genuine NCCL has its own. */
  if (strcmp(getenv("MW_BACKEND"), "nccl") != 0) parameters();
  handles(comm);
  puts("fine");
  return 0;
}
