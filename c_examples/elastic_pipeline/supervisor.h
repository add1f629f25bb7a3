/* What main.c, supervisor.c and books.c share. */
#ifndef ELASTIC_PIPELINE_SUPERVISOR_H
#define ELASTIC_PIPELINE_SUPERVISOR_H

#include <stdarg.h>

#include "pipeline.h"

/* What the user wants. */
typedef struct {
  Options options; /* for all processes */
  int rounds;
  int spare;       /* the replacement waits before the kill */
  int quiet;
} Plan;

/* Answers of one place in stage 2. */
typedef struct {
  uint64_t total;
  uint64_t replacement; /* of these by a process after the first */
  uint64_t shown;       /* total at the last line shown */
} Tally;

/* One kill. All times are CLOCK_MONOTONIC, 0: not yet. */
typedef struct {
  int replica;
  int generation;       /* of the replacement */
  int has_spare;        /* the replacement was started */
  uint64_t waiting_at;  /* it is there */
  uint64_t killed_at;
  uint64_t detected_at;
  uint64_t recovered_at;
} Round;

typedef struct {
  uint64_t requests;
  int quiet;
  int terminal;
  int replicas;
  uint64_t answered;
  uint64_t wrong;
  uint64_t duplicates;
  uint64_t* answer_times; /* ascending */
  Tally tally[POOL];
  Round* rounds;
  int round_count;
  int round;              /* the present one; `round_count` when all are over */
  uint64_t ready_at;
  uint64_t shown_at;
  uint64_t drawn_at;
  uint64_t telling;       /* when what is being told happened; 0: now */
} Books;

void books_open(Books* books, const Plan* plan);
void books_enter(Books* books, const Report* record);
void books_show(Books* books);
/* Prints the last line; answers the exit code. */
int books_close(Books* books);
/* One line of the time line. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void tell(const Books* books, const char* format, ...);

/* supervisor.c: answers the exit code. */
int supervise(const Plan* plan);

#endif
