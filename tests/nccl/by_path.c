/* As programs do that are told where libnccl is: opened by its path, beside the one that this
 * is linked against. */
#include <dlfcn.h>

#include "ranks.h"

int main(void) {
  start();
  void *library = dlopen(getenv("LIBRARY"), RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  ncclResult_t (*version)(int *), (*unique)(ncclUniqueId *);
  const char *(*describe)(ncclResult_t);
  *(void **)&version = dlsym(library, "ncclGetVersion");
  *(void **)&unique = dlsym(library, "ncclGetUniqueId");
  *(void **)&describe = dlsym(library, "pncclGetErrorString");
  CHECK(version != NULL && unique != NULL && describe != NULL);
  int number = 0;
  ncclUniqueId id;
  OK(version(&number));
  CHECK(number > 20000);
  OK(unique(&id));
  CHECK(strcmp(describe(ncclSuccess), "no error") == 0);
  puts("fine");
  return 0;
}
