/* An elastic serving pipeline on multiworld: what its files share.
 *
 *                        +--> stage2a --+
 *     leader --> stage1 -+              +-> stage3 --> leader
 *                        +--> stage2b --+
 *
 * Every arrow is a world of two processes, so every link is a fault domain of its own. When stage2a is
 * killed, the worlds on its two sides break and nothing else does: stage 1 sends what was lost to stage2b, and
 * a new stage2a joins by two new worlds while traffic flows.
 *
 *     main.c        the supervisor: starts the processes, kills one, starts the replacement, keeps the books
 *     leader.c      feeds requests at a fixed rate and hands each answer to the supervisor
 *     stages.c      stages 2 and 3
 *     dispatch.c    stage 1, which spreads requests over the replicas and repeats those that a dead one had
 *     links.c       joining worlds, also from a helper thread, and sending and receiving messages
 *     model.c       the computation; the same functions make the reference
 *     report.c      what the processes tell the supervisor, through a pipe
 */
#ifndef ELASTIC_PIPELINE_H
#define ELASTIC_PIPELINE_H

#define _DEFAULT_SOURCE
#include <pthread.h>

#include "../common.h"

enum { REPLICAS = 2, DIM = 256, LOGITS = 16, TEXT_BYTES = DIM * (int)sizeof(float) };

/* Requests on their way at any time. Their ids lie within one window, so `id % WINDOW` names a slot. */
enum { WINDOW = 64 };

/* Requests that one replica may hold; it returns a credit for each. */
enum { CREDITS = 8 };

typedef enum { ROLE_LEADER, ROLE_STAGE1, ROLE_STAGE2, ROLE_STAGE3, ROLE_COUNT } Role;

/* model.c */
void model_embed(const char* text, float* values);         /* stage 1: TEXT_BYTES of text to DIM values */
void model_transform(const float* values, float* result);  /* stage 2: DIM to DIM */
void model_classify(const float* values, float* logits);   /* stage 3: DIM to LOGITS */
void model_init(void);

typedef enum { MESSAGE_REQUEST = 1, MESSAGE_STOP = 2 } MessageKind;

/* What travels through the pipeline. One fixed size keeps receiving simple. */
typedef struct {
  uint32_t kind;
  int32_t replica;     /* set by stage 2: which replica worked on it, 0 or 1 */
  int32_t generation;  /* set by stage 2: the how manyeth process in that place */
  int32_t unused;
  uint64_t id;
  uint64_t completed;  /* set by the leader: every request below this id has been answered */
  union {
    char text[TEXT_BYTES];
    float values[DIM];
    float logits[LOGITS];
  } payload;
} Message;

/* What stage 2 returns to stage 1 for every request it has passed on. */
typedef struct {
  uint32_t kind;  /* MESSAGE_STOP: the replica's last word */
  uint32_t unused;
  uint64_t id;
} Credit;

/* links.c: this process's end of a world of two; the other end is rank `1 - rank`. */
typedef struct {
  mwWorld_t world;
  int peer;
} Link;

void link_join(Link* link, const char* name, int rank);
void link_destroy(Link* link);
void link_abort(Link* link);
mwResult_t link_send(Link* link, const void* data, size_t size);
mwResult_t link_recv(Link* link, void* data, size_t size);
mwRequest_t link_post_recv(Link* link, void* data, size_t size);
mwRequest_t link_post_send(Link* link, const void* data, size_t size);

/* Joins a world in a helper thread, so that the rest of the process goes on. */
typedef struct {
  pthread_t thread;
  pthread_mutex_t lock;
  int running;  /* only touched by the thread that owns the joiner */
  int joined;   /* guarded by lock */
  char name[MW_WORLD_NAME_BYTES];
  Link link;
} Joiner;

void joiner_start(Joiner* joiner, const char* name);
/* Answers 1, and the link, once the helper is through. With `wait` it waits for that. */
int joiner_finished(Joiner* joiner, int wait, Link* link);

/* The names of the worlds around replica 0 ("a") or 1 ("b"), `generation` processes after the first. */
void name_upstream(char* name, int replica, int generation);
void name_downstream(char* name, int replica, int generation);

/* report.c */
typedef enum {
  REPORT_READY,     /* leader: all worlds stand, traffic begins */
  REPORT_ANSWER,    /* leader: an answer came: `id`, `replica`, `generation`; `value` 1 if it is right */
  REPORT_DUPLICATE, /* leader: an answer came twice and was dropped */
  REPORT_FAILURE,   /* stage 1 or 3: a world broke */
  REPORT_REROUTED,  /* stage 1: `value` requests of a dead replica go to the other one */
  REPORT_JOINED     /* stage 1 or 3: the replacement's world stands */
} ReportKind;

typedef struct {
  uint64_t time_ns;
  uint64_t id;
  int32_t kind;
  int32_t role;
  int32_t replica;
  int32_t generation;
  int64_t value;
} Report;

void report_init(int fd, Role role);
void report(ReportKind kind, uint64_t id, int replica, int generation, int64_t value);

/* leader.c: the requests, one per line of the input. */
typedef struct {
  char (*lines)[TEXT_BYTES];
  size_t count;
} Input;

/* What a process was started with. */
typedef struct {
  Role role;
  int replica;
  int generation;
  int report_fd;
  uint64_t requests;
  uint64_t rate;
  const char* input;
} Options;

int input_load(Input* input, const char* path); /* 0, or -1 with a message printed */
void run_leader(const Options* options);
void run_stage1(void);
void run_stage2(const Options* options);
void run_stage3(void);

#endif
