/* What all programs here share: they are one rank each, told by RANK and NRANKS which, and meet in the
 * folder MEET. */
#ifndef RANKS_H
#define RANKS_H

#ifdef WITH_NCCL_H
#include <nccl.h>
#else
#include "nccl_min.h"
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int rank, nranks;

#define CHECK(condition)                                                                                       \
  do {                                                                                                         \
    if (!(condition)) {                                                                                        \
      fprintf(stderr, "rank %d: %s:%d: %s; the last error is '%s'\n", rank, __FILE__, __LINE__, #condition,    \
              ncclGetLastError(NULL));                                                                         \
      exit(1);                                                                                                 \
    }                                                                                                          \
  } while (0)
#define IS(call, expected)                                                                                     \
  do {                                                                                                         \
    ncclResult_t result_ = (call);                                                                             \
    if (result_ != (expected)) {                                                                               \
      fprintf(stderr, "rank %d: %s:%d: %s is %d, not %d; the last error is '%s'\n", rank, __FILE__, __LINE__,  \
              #call, (int)result_, (int)(expected), ncclGetLastError(NULL));                                   \
      exit(1);                                                                                                 \
    }                                                                                                          \
  } while (0)
#define OK(call) IS(call, ncclSuccess)
#define REFUSED(call) IS(call, ncclInvalidArgument)

static inline double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void nap(void) {
  struct timespec ms = { 0, 1000000 };
  nanosleep(&ms, NULL);
}

static inline int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text != NULL ? atoi(text) : otherwise;
}

static inline void start(void) {
  rank = number("RANK", 0);
  nranks = number("NRANKS", 1);
}

/* A unique id by a name: who `makes` it writes it into a file, the others wait for that. */
static inline void share(ncclUniqueId *id, const char *name, int makes) {
  char path[4096], draft[4200];
  const char *folder = getenv("MEET");
  CHECK(folder != NULL);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  snprintf(draft, sizeof draft, "%s.draft", path);
  if (makes) {
    FILE *file = fopen(draft, "wb");
    CHECK(file != NULL && fwrite(id, sizeof *id, 1, file) == 1 && fclose(file) == 0);
    CHECK(rename(draft, path) == 0);
    return;
  }
  for (double until = seconds() + 60; seconds() < until; nap()) {
    FILE *file = fopen(path, "rb");
    if (file != NULL) {
      CHECK(fread(id, sizeof *id, 1, file) == 1 && fclose(file) == 0);
      return;
    }
  }
  CHECK(!"the id came in time");
}

/* Returns when all ranks have come here, without NCCL: nobody is in a call that what comes next could break. */
static inline void all_are(const char *where) {
  char path[4200];
  const char *folder = getenv("MEET");
  CHECK(folder != NULL);
  snprintf(path, sizeof path, "%s/%s.%d", folder, where, rank);
  FILE *file = fopen(path, "wb");
  CHECK(file != NULL && fclose(file) == 0);
  double until = seconds() + 60;
  for (int r = 0; r < nranks; r++) {
    snprintf(path, sizeof path, "%s/%s.%d", folder, where, r);
    while (access(path, F_OK) != 0 && seconds() < until) nap();
  }
  CHECK(seconds() < until);
}

static inline ncclUniqueId meet(const char *name) {
  ncclUniqueId id;
  if (rank == 0) OK(ncclGetUniqueId(&id));
  share(&id, name, rank == 0);
  return id;
}

static inline ncclComm_t join(const char *name) {
  ncclComm_t comm = NULL;
  OK(ncclCommInitRank(&comm, nranks, meet(name), rank));
  CHECK(comm != NULL);
  return comm;
}

/* Polls a communicator until it is not in progress any more. */
static inline ncclResult_t settled(ncclComm_t comm) {
  for (double until = seconds() + 60; seconds() < until; nap()) {
    ncclResult_t state = ncclInternalError;
    OK(ncclCommGetAsyncError(comm, &state));
    if (state != ncclInProgress) return state;
  }
  return ncclInProgress;
}

/* Whether a communicator of this many ranks works and this rank is the one it should be. */
static inline void works(ncclComm_t comm, int count, int me) {
  int n = -1, r = -1;
  OK(ncclCommCount(comm, &n));
  OK(ncclCommUserRank(comm, &r));
  CHECK(n == count && r == me);
  int one = me + 1, sum = 0;
  ncclResult_t result = ncclAllReduce(&one, &sum, 1, ncclInt32, ncclSum, comm, NULL);
  /* A non-blocking communicator may still be at work. */
  if (result == ncclInProgress) result = settled(comm);
  IS(result, ncclSuccess);
  CHECK(sum == count * (count + 1) / 2);
}

#endif
