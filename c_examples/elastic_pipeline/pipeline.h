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
 * There are two other ways to recover:
 *
 *     --recover reform  The two arrows of a replica are one world of three: stage 1, the replica and stage 3.
 *                       It keeps its name, and everybody in it its rank: stage 1 and stage 3 reform it, and
 *                       the replacement takes the hole. See replicas.c.
 *     --recover grow    A leader and four replicas, all in one world, which is shrunk after a death, goes on,
 *                       and is grown when the replacement is there. See pool.h.
 *
 *     main.c        what the user wants, and what each process does
 *     supervisor.c  starts the processes, kills replicas, starts the replacements
 *     books.c       who answered how much and when
 *     leader.c      feeds requests at a fixed rate and hands each answer to the supervisor
 *     requests.c    the requests, and what is right
 *     stages.c      stages 2 and 3
 *     dispatch.c    stage 1, which spreads requests over the replicas and repeats those that a dead one had
 *     backlog.c     what may have to be repeated
 *     replicas.c    the worlds around a replica, and what takes their place when it has died
 *     links.c       joining worlds, also from a helper thread, and sending and receiving messages
 *     pool.c, pool_leader.c, pool_replica.c
 *                   the one world that shrinks and grows
 *     model.c       the computation; the same functions make the reference
 *     report.c      what the processes tell the supervisor, through a pipe
 */
#ifndef ELASTIC_PIPELINE_H
#define ELASTIC_PIPELINE_H

#define _DEFAULT_SOURCE
#include <pthread.h>

#include "../common.h"

/* Replicas of stage 2 in the pipeline, and in the one world that grows. */
enum { REPLICAS = 2, POOL = 4 };

enum { DIM = 256, LOGITS = 16, TEXT_BYTES = DIM * (int)sizeof(float) };

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

/* How a dead replica is replaced. */
typedef enum { RECOVER_REJOIN, RECOVER_REFORM, RECOVER_GROW, RECOVER_COUNT } Recovery;

typedef enum { MESSAGE_REQUEST = 1, MESSAGE_STOP = 2, MESSAGE_GROW = 3 } MessageKind;

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

/* links.c: a world, and the other end there. */
typedef struct {
  mwWorld_t world;
  int peer;
} Link;

mwConfig_t link_config(void);
void link_join(Link* link, const char* name, int rank);  /* a world of two */
void link_await(Link* link, const char* name, int rank); /* the same, however long the other one takes */
void link_destroy(Link* link);
void link_abort(Link* link);
mwResult_t link_send(Link* link, const void* data, size_t size);
mwResult_t link_recv(Link* link, void* data, size_t size);
mwRequest_t link_post_recv(Link* link, void* data, size_t size);
mwRequest_t link_post_send(Link* link, const void* data, size_t size);

/* Brings the link to process `generation` in the place of a replica. `link` is what the last one left. */
typedef void Bring(Link* link, int replica, int generation);

/* Brings a link in a helper thread, so that the rest of the process goes on. */
typedef struct {
  pthread_t thread;
  pthread_mutex_t lock;
  int running;  /* only touched by the thread that owns the joiner */
  int joined;   /* guarded by lock */
  Bring* bring;
  int replica;
  int generation;
  Link link;
} Joiner;

void joiner_start(Joiner* joiner, Bring* bring, const Link* link, int replica, int generation);
/* Answers 1, and the link, once the helper is through. With `wait` it waits for that. */
int joiner_finished(Joiner* joiner, int wait, Link* link);

/* replicas.c */
void replicas_init(Recovery recovery);
void upstream_join(Link* link, int replica);   /* stage 1's link to the first process in that place */
void downstream_join(Link* link, int replica); /* stage 3's */
Bring upstream_renew, downstream_renew;
/* The replica's own links. Process 1 is there from the beginning, later ones wait for their turn. */
void replica_join(Link* upstream, Link* downstream, int replica, int generation);
void replica_leave(Link* upstream, Link* downstream);

/* backlog.c */
void backlog_add(const Message* message);        /* it is to be sent */
const Message* backlog_next(void);               /* the oldest that is to be sent, or NULL */
void backlog_sent(uint64_t id, int replica);
void backlog_answered(uint64_t id);
void backlog_completed(uint64_t end);            /* all below have been answered */
int64_t backlog_requeue(int replica);            /* what it was sent is to be sent again; answers how many */

/* report.c */
typedef enum {
  REPORT_READY,     /* leader: all worlds stand, traffic begins */
  REPORT_ANSWER,    /* leader: an answer came: `id`, `replica`, `generation`; `value` 1 if it is right */
  REPORT_DUPLICATE, /* leader: an answer came twice and was dropped */
  REPORT_FAILURE,   /* stage 1 or 3: a world broke */
  REPORT_REROUTED,  /* stage 1: `value` requests of a dead replica go to the other one */
  REPORT_JOINED,    /* stage 1 or 3: the replacement's world stands */
  REPORT_WAITING    /* a replica that is not the first in its place is about to wait for its turn */
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

/* requests.c: one per line of the input, again and again. */
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
  Recovery recovery;
  uint64_t requests;
  uint64_t rate;
  const char* input;
} Options;

typedef struct {
  uint64_t next;                   /* the id to send next */
  uint64_t oldest;                 /* every id below is answered */
  uint64_t start;                  /* when the first one was asked for */
  unsigned char answered[WINDOW];
  float (*expected)[LOGITS];       /* one per line of the input */
  Input input;
  const Options* options;
} Requests;

int input_load(Input* input, const char* path); /* 0, or -1 with a message printed */
void requests_open(Requests* requests, const Options* options);
void requests_close(Requests* requests);
/* Answers 1, and the message, if it is time for another one. After the last answer that is MESSAGE_STOP. */
int requests_next(Requests* requests, Message* message);
void requests_answered(Requests* requests, const Message* answer);

void run_leader(const Options* options);       /* leader.c */
void run_stage1(void);                         /* dispatch.c */
void run_stage2(const Options* options);       /* stages.c */
void run_stage3(void);
void run_pool_leader(const Options* options);  /* pool_leader.c */
void run_pool_replica(const Options* options); /* pool_replica.c */

#endif
