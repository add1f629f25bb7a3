/* Every operation, checked element by element. */
#include "ranks.h"

enum { COUNT = 1021, LARGE = 300000 };

static ncclComm_t comm;

static void collectives(size_t count) {
  const size_t n = (size_t)nranks, me = (size_t)rank;
  int *in = malloc(n * count * sizeof *in), *out = malloc(n * count * sizeof *out);
  CHECK(in != NULL && out != NULL);
#define FILL(words, formula)                                                                                   \
  for (size_t i = 0; i < (words); i++) in[i] = (int)(formula), out[i] = -7
#define EXPECT(words, formula)                                                                                 \
  for (size_t i = 0; i < (words); i++) CHECK(out[i] == (int)(formula))
  for (int root = 0; root < nranks; root += nranks > 2 ? nranks - 1 : 1) {
    FILL(count, me * 1000 + i);
    OK(ncclBroadcast(in, out, count, ncclInt32, root, comm, NULL));
    EXPECT(count, (size_t)root * 1000 + i);
    FILL(count, me + i);
    OK(ncclBcast(in, count, ncclInt32, root, comm, NULL));
    for (size_t i = 0; i < count; i++) CHECK(in[i] == (int)((size_t)root + i));
    FILL(count, me + i);
    OK(ncclReduce(in, rank == root ? out : NULL, count, ncclInt32, ncclSum, root, comm, NULL));
    if (rank == root) EXPECT(count, n * i + n * (n - 1) / 2);
    FILL(count, me * 10 + i);
    OK(ncclGather(in, out, count, ncclInt32, root, comm, NULL));
    if (rank == root) EXPECT(n * count, i / count * 10 + i % count);
    FILL(n * count, i + (size_t)root);
    OK(ncclScatter(rank == root ? in : NULL, out, count, ncclInt32, root, comm, NULL));
    EXPECT(count, me * count + i + (size_t)root);
  }
  FILL(count, me + i);
  OK(ncclAllReduce(in, out, count, ncclInt32, ncclMax, comm, NULL));
  EXPECT(count, n - 1 + i);
  OK(ncclAllReduce(in, in, count, ncclInt32, ncclMin, comm, NULL));
  for (size_t i = 0; i < count; i++) CHECK(in[i] == (int)i);
  FILL(count, me * 3 + i);
  OK(ncclAllGather(in, out, count, ncclInt32, comm, NULL));
  EXPECT(n * count, i / count * 3 + i % count);
  FILL(n * count, i + me);
  OK(ncclReduceScatter(in, out, count, ncclInt32, ncclSum, comm, NULL));
  EXPECT(count, n * (me * count + i) + n * (n - 1) / 2);
  FILL(n * count, me * 100000 + i);
  OK(ncclAlltoAll(in, out, count, ncclInt32, comm, NULL));
  EXPECT(n * count, i / count * 100000 + me * count + i % count);
  free(in);
  free(out);
}

static void reductions(void) {
  double half = 0.5, in[3] = { rank + 1, 2, -4 }, out[3];
  ncclRedOp_t op, later;
  OK(ncclAllReduce(in, out, 3, ncclFloat64, ncclAvg, comm, NULL));
  CHECK(out[0] == (nranks + 1) / 2.0 && out[1] == 2 && out[2] == -4);
  OK(ncclAllReduce(in + 1, out, 1, ncclFloat64, ncclProd, comm, NULL));
  CHECK(out[0] == (double)(1 << nranks));
  OK(ncclRedOpCreatePreMulSum(&op, &half, ncclFloat64, ncclScalarHostImmediate, comm));
  OK(ncclRedOpCreatePreMulSum(&later, &half, ncclFloat64, ncclScalarDevice, comm));
  half = 0.25;
  OK(ncclAllReduce(in, out, 3, ncclFloat64, op, comm, NULL));
  CHECK(out[1] == nranks * 2 * 0.5);
  OK(ncclAllReduce(in, out, 3, ncclFloat64, later, comm, NULL));
  CHECK(out[1] == nranks * 2 * 0.25);
  REFUSED(ncclAllReduce(in, out, 3, ncclInt32, op, comm, NULL));
  OK(ncclRedOpDestroy(op, comm));
  REFUSED(ncclRedOpDestroy(op, comm));
  REFUSED(ncclAllReduce(in, out, 3, ncclFloat64, op, comm, NULL));
  OK(ncclRedOpDestroy(later, comm));
  int8_t bytes[2] = { 1, (int8_t)rank };
  OK(ncclAllReduce(bytes, bytes, 2, ncclInt8, ncclSum, comm, NULL));
  CHECK(bytes[0] == nranks);
}

static void configured(void) {
  ncclCollConfig_t config = NCCL_COLLCONFIG_INITIALIZER;
  int in = rank, out = -1;
  OK(ncclAllReduceConfig(&in, &out, 1, ncclInt32, ncclSum, comm, NULL, &config));
  CHECK(out == nranks * (nranks - 1) / 2);
  OK(ncclBroadcastConfig(&in, &out, 1, ncclInt32, 0, comm, NULL, NULL));
  CHECK(out == 0);
  config.magic = 1;
  REFUSED(ncclAllReduceConfig(&in, &out, 1, ncclInt32, ncclSum, comm, NULL, &config));
}

static void messages(ncclComm_t other) {
  const int next = (rank + 1) % nranks, before = (rank + nranks - 1) % nranks;
  static float out[LARGE], in[LARGE];
  for (int i = 0; i < LARGE; i++) out[i] = (float)(rank + i % 97);
  /* A ring, which only a group can do. */
  OK(ncclGroupStart());
  OK(ncclSend(out, LARGE, ncclFloat32, next, comm, NULL));
  OK(ncclRecv(in, LARGE, ncclFloat32, before, comm, NULL));
  OK(ncclGroupEnd());
  for (int i = 0; i < LARGE; i++) CHECK(in[i] == (float)(before + i % 97));
  /* One after the other, without. */
  if (nranks > 1 && rank < 2) {
    int token = 41 + rank;
    if (rank == 0) OK(ncclSend(&token, 1, ncclInt32, 1, comm, NULL));
    if (rank == 1) OK(ncclRecv(&token, 1, ncclInt32, 0, comm, NULL));
    CHECK(token == 41);
  }
  /* To oneself, in nested groups, together with another communicator. */
  int seven = 7, got = 0, sum = 0, sum2 = 0;
  OK(ncclGroupStart());
  OK(ncclSend(&seven, 1, ncclInt32, rank, comm, NULL));
  OK(ncclGroupStart());
  OK(ncclRecv(&got, 1, ncclInt32, rank, comm, NULL));
  OK(ncclAllReduce(&seven, &sum, 1, ncclInt32, ncclSum, other, NULL));
  OK(ncclGroupEnd());
  CHECK(got == 0 && sum == 0);
  OK(ncclAllReduce(&seven, &sum2, 1, ncclInt32, ncclSum, comm, NULL));
  OK(ncclGroupEnd());
  CHECK(got == 7 && sum == 7 * nranks && sum2 == 7 * nranks);
  IS(ncclSend(&seven, 1, ncclInt32, rank, comm, NULL), ncclInvalidUsage);
  /* Everybody with everybody. */
  int all[64];
  OK(ncclGroupStart());
  for (int r = 0; r < nranks; r++) {
    OK(ncclSend(&rank, 1, ncclInt32, r, comm, NULL));
    OK(ncclRecv(&all[r], 1, ncclInt32, r, comm, NULL));
  }
  OK(ncclGroupEnd());
  for (int r = 0; r < nranks; r++) CHECK(all[r] == r);
  /* An empty group, and a simulated one, in which nothing happens. */
  OK(ncclGroupStart());
  OK(ncclGroupEnd());
  ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
  OK(ncclGroupStart());
  OK(ncclAllReduce(&rank, &got, 1, ncclInt32, ncclSum, comm, NULL));
  OK(ncclGroupSimulateEnd(&info));
  CHECK(got == 7 && info.estimatedTime >= 0);
}

static void memory(void) {
  void *buffer = NULL, *registered = NULL, *found = NULL;
  ncclWindow_t window = NULL;
  uint64_t bytes = 77;
  OK(ncclMemAlloc(&buffer, 12345));
  CHECK(buffer != NULL && (uintptr_t)buffer % 4096 == 0);
  memset(buffer, 1, 12345);
  OK(ncclAllReduce(buffer, buffer, 12345, ncclUint8, ncclSum, comm, NULL));
  CHECK(((unsigned char *)buffer)[12344] == nranks);
  OK(ncclCommRegister(comm, buffer, 12345, &registered));
  OK(ncclCommDeregister(comm, registered));
  REFUSED(ncclCommDeregister(comm, registered));
  OK(ncclCommWindowRegister(comm, buffer, 12345, &window, NCCL_WIN_DEFAULT));
  OK(ncclWinGetUserPtr(comm, window, &found));
  CHECK(found == buffer);
  OK(ncclCommWindowDeregister(comm, window));
  REFUSED(ncclWinGetUserPtr(comm, window, &found));
  OK(ncclMemFree(buffer));
  REFUSED(ncclMemFree(&buffer));
  OK(ncclCommMemStats(comm, ncclStatGpuMemTotal, &bytes));
  CHECK(bytes != 77);
  OK(ncclCommSuspend(comm, NCCL_SUSPEND_MEM));
  OK(ncclCommMemStats(comm, ncclStatGpuMemSuspended, &bytes));
  CHECK(bytes == 1);
  IS(ncclAllReduce(&rank, &rank, 1, ncclInt32, ncclSum, comm, NULL), ncclInvalidUsage);
  OK(ncclCommResume(comm));
}

int main(void) {
  start();
  comm = join("first");
  ncclComm_t other = join("second");
  works(comm, nranks, rank);
  int version = 0, device = -1, out = 0;
  OK(ncclGetVersion(&version));
  CHECK(version == 23203);
  OK(pncclGetVersion(&version));
  OK(ncclCommCuDevice(comm, &device));
  CHECK(device == 0);
  OK(pncclAllReduce(&nranks, &out, 1, ncclInt32, ncclSum, comm, NULL));
  CHECK(out == nranks * nranks);
  collectives(0);
  collectives(1);
  collectives(COUNT);
  reductions();
  configured();
  messages(other);
  memory();
  if (strcmp(getenv("MW_BACKEND"), "nccl") != 0) {
    IS(ncclSignal(0, 0, 0, 0, comm, NULL), ncclInvalidUsage);
    CHECK(strstr(ncclGetLastError(NULL), "ncclSignal") != NULL);
  }
  OK(ncclCommFinalize(comm));
  CHECK(settled(comm) == ncclSuccess);
  OK(ncclCommDestroy(comm));
  OK(ncclCommDestroy(other));
  puts("fine");
  return 0;
}
