/* Ranks with streams meet a fault, told by HOW; each looks that its stream becomes free and that it is told in time. */
#include "double.h"

static cudaStream_t stream;
static int *data;
static ncclComm_t comm;

/* The last rank dies. The others are in what they do next meanwhile, as a rule; it must be right in any case. */
static void die(void) {
  if (rank != nranks - 1) return;
  for (int i = 0; i < 100; i++) nap();
  kill(getpid(), SIGKILL);
}

static void works_on_stream(void) {
  *data = rank + 1;
  OK(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream));
  CHECK(freed(stream) == 0 && *data == nranks * (nranks + 1) / 2);
}

/* Told, refused from now on, and gone when the program says so. */
static void told(ncclResult_t expected) {
  CHECK(freed(stream) == 0);
  CHECK(broken(comm) == expected);
  IS(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream), expected);
  CHECK(strlen(ncclGetLastError(comm)) > 0);
  OK(ncclCommAbort(comm));
  REFUSED(ncclCommAbort(comm));
}

int main(void) {
  start();
  const char *how = getenv("HOW");
  CHECK(how != NULL && nranks > 1);
  CHECK(cudaStreamCreate(&stream) == 0 && cudaMalloc((void **)&data, sizeof(int)) == 0);
  comm = join("faults");
  works_on_stream();
  all_are("at work");
  double begin = seconds();
  if (strcmp(how, "idle") == 0) {
    die();
    told(ncclRemoteError);
  } else if (strcmp(how, "stream") == 0) {
    die();
    OK(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream));
    told(ncclRemoteError);
  } else if (strcmp(how, "report") == 0) {
    /* Nothing is aborted before the program does it; the stream stays as it is until then. */
    die();
    OK(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream));
    CHECK(broken(comm) == ncclRemoteError);
    IS(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream), ncclRemoteError);
    for (int i = 0; i < 100; i++) nap();
    CHECK(calls("CommAbort") == 0 && calls("CommRevoke") == 0 && (int)cudaStreamQuery(stream) == 600);
    OK(ncclCommAbort(comm));
    CHECK(calls("CommAbort") == 1 && freed(stream) == 0);
    REFUSED(ncclCommAbort(comm));
  } else if (strcmp(how, "deadline") == 0) {
    if (rank == 0) OK(ncclRecv(data, 1, ncclInt32, 1, comm, stream));
    told(ncclTimeout);
  } else if (strcmp(how, "async") == 0) {
    if (rank == 1) set_script("CommGetAsyncError@1=async:6");
    told(ncclRemoteError);
  } else if (strcmp(how, "error") == 0) {
    if (rank == 1) {
      set_script("AllReduce@1=error:3");
      IS(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, stream), ncclInternalError);
    }
    told(ncclInternalError);
  } else if (strcmp(how, "blocked") == 0) {
    /* The call itself never returns where it does not end: the double holds its job. */
    if (rank == 0) set_script("CommSplit@1=hang");
    die();
    ncclComm_t child = NULL;
    IS(ncclCommSplit(comm, 0, rank, &child, NULL), ncclRemoteError);
    set_script("");
    told(ncclRemoteError);
  } else if (strcmp(how, "abort") == 0) {
    /* The genuine abort hangs: the program's returns all the same. */
    set_script("CommAbort@1=hang");
    OK(ncclCommAbort(comm));
    CHECK(seconds() - begin < 10);
    set_script("");
  } else {
    CHECK(!"a known fault");
  }
  CHECK(seconds() - begin < 20);
  lawful();
  puts("fine");
  return 0;
}
