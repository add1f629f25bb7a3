/* For LD_PRELOAD: to NCCL, every process becomes a host of its own, so that several ranks can share one GPU
 * although the program does not know of it. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void set_host_id(void) {
  char name[32];
  snprintf(name, sizeof name, "mw-%ld", (long)getpid());
  setenv("NCCL_HOSTID", name, 1);
}

__attribute__((constructor)) static void begin(void) {
  set_host_id();
  pthread_atfork(NULL, NULL, set_host_id);
}
