/* Checks of the C tests. A failed check is printed and counted, the test goes on; main returns check_report(). */
#ifndef MW_TESTS_CHECK_H
#define MW_TESTS_CHECK_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <multiworld.h>

static pthread_mutex_t check_lock = PTHREAD_MUTEX_INITIALIZER;
static int check_failures;
static int check_count;

static inline void check_that(int holds, const char* file, int line, const char* what, const char* detail) {
  pthread_mutex_lock(&check_lock);
  ++check_count;
  if (!holds && ++check_failures <= 50) printf("%s:%d: %s: %s\n", file, line, what, detail);
  pthread_mutex_unlock(&check_lock);
}

static inline void check_result(mwResult_t expected, mwResult_t result, const char* file, int line,
                                const char* call) {
  char detail[512];
  if (result == expected) {
    check_that(1, file, line, call, "");
    return;
  }
  snprintf(detail, sizeof detail, "returned \"%s\" (%d), expected \"%s\" (%d); last error: %.200s",
           mwGetErrorString(result), (int)result, mwGetErrorString(expected), (int)expected,
           mwGetLastError(NULL));
  check_that(0, file, line, call, detail);
}

/* The call returned mwInvalidArgument, and this thread's last error names the argument. */
static inline void check_refused(const char* argument, mwResult_t result, const char* file, int line,
                                 const char* call) {
  char detail[512];
  const char* text = mwGetLastError(NULL);
  check_result(mwInvalidArgument, result, file, line, call);
  if (result != mwInvalidArgument) return;
  snprintf(detail, sizeof detail, "the sentence does not name \"%s\": %.300s", argument,
           text == NULL ? "" : text);
  check_that(text != NULL && strstr(text, argument) != NULL, file, line, call, detail);
}

#define CHECK(condition) check_that((condition) != 0, __FILE__, __LINE__, #condition, "does not hold")
#define CHECK_RESULT(expected, call) check_result(expected, call, __FILE__, __LINE__, #call)
#define CHECK_OK(call) CHECK_RESULT(mwSuccess, call)
#define CHECK_REFUSED(argument, call) check_refused(argument, call, __FILE__, __LINE__, #call)

/* For what the rest of a test cannot do without. */
#define NEED(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      printf("%s:%d: cannot go on: %s: %s\n", __FILE__, __LINE__, #condition, mwGetLastError(NULL)); \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

/* Under valgrind, where everything takes fifty times as long, QUICK=1 is set. */
static inline int check_quick(void) { return getenv("QUICK") != NULL; }

static inline int check_report(const char* name) {
  printf("%s: %d checks, %d failed\n", name, check_count, check_failures);
  return check_failures == 0 ? 0 : 1;
}

/* Runs `body` on one thread per rank of a world of this process. */
typedef struct {
  mwWorld_t world;
  int nranks;
  int rank;
  void (*body)(mwWorld_t world, int nranks, int rank);
} CheckRank;

static inline void* check_rank_thread(void* argument) {
  CheckRank* rank = (CheckRank*)argument;
  rank->body(rank->world, rank->nranks, rank->rank);
  return NULL;
}

static inline void check_ranks(mwWorld_t* worlds, int nranks, void (*body)(mwWorld_t, int, int)) {
  pthread_t threads[16];
  CheckRank ranks[16];
  for (int i = 0; i < nranks; ++i) {
    ranks[i].world = worlds[i];
    ranks[i].nranks = nranks;
    ranks[i].rank = i;
    ranks[i].body = body;
    NEED(pthread_create(&threads[i], NULL, check_rank_thread, &ranks[i]) == 0);
  }
  for (int i = 0; i < nranks; ++i) pthread_join(threads[i], NULL);
}

/* Destroying is a farewell of all members to each other, so every rank does it on its own thread. */
static inline void check_destroy(mwWorld_t world, int nranks, int rank) {
  (void)nranks;
  (void)rank;
  CHECK_OK(mwWorldDestroy(world));
}

#endif
