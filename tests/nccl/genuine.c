/* What the genuine NCCL does without a GPU. One rank; where there is a GPU, the communicator is made. */
#include "ranks.h"

int main(void) {
  start();
  int version = 0;
  OK(ncclGetVersion(&version));
  CHECK(version > 20000);
  /* Its own words. */
  CHECK(strstr(ncclGetErrorString(ncclUnhandledCudaError), "cuda") != NULL);
  CHECK(strcmp(ncclGetErrorString(ncclSuccess), "no error") == 0);
  ncclUniqueId id, zero;
  memset(&zero, 0, sizeof zero);
  OK(ncclGetUniqueId(&id));
  CHECK(memcmp(&id, &zero, 40) != 0);
  OK(ncclGroupStart());
  OK(ncclGroupEnd());
  if (version >= 23000) {
    ncclParamHandle_t handle = NULL;
    const char *text = NULL, **keys = NULL;
    int length = 0;
    OK(ncclParamGetAllParameterKeys(&keys, &length));
    CHECK(length > 0);
    OK(ncclParamBind(&handle, keys[0]));
    OK(ncclParamGetStr(handle, &text));
    REFUSED(ncclParamBind(&handle, "NO_SUCH_PARAMETER"));
  }
  REFUSED(ncclCommDestroy(NULL));
  CHECK(strstr(ncclGetLastError(NULL), "comm: NULL") != NULL);
  ncclComm_t comm = NULL;
  double begin = seconds();
  ncclResult_t result = ncclCommInitRank(&comm, 1, id, 0);
  CHECK(seconds() - begin < 30);
  if (result == ncclSuccess) {
    works(comm, 1, 0);
    OK(ncclCommDestroy(comm));
  } else {
    CHECK(result == ncclUnhandledCudaError && comm == NULL);
    CHECK(strstr(ncclGetLastError(NULL), "comm: NULL") == NULL);
    void *memory = NULL;
    IS(ncclMemAlloc(&memory, 4096), ncclUnhandledCudaError);
  }
  puts("fine");
  return 0;
}
