/* The leader of the one world: does the work of stage 1 as well, and decides when the world grows. */
#include "pool.h"

typedef struct {
  int rank;              /* 0: it is not in the world */
  int generation;
  int credits;
  Message answer;
  mwRequest_t receiving; /* the next answer */
  Joiner joiner;         /* opens the door for the replacement */
} Replica;

static Replica replicas[POOL];
static mwWorld_t world;
static Requests requests;

/* The replacement that everybody makes way for, and the door at which it waits; -1: none. */
static int newcomer = -1;
static Link door;

static Link link_to(const Replica* replica) {
  Link link;
  link.world = world;
  link.peer = replica->rank;
  return link;
}

static void post_receive(Replica* replica) {
  Link link = link_to(replica);
  replica->receiving = link_post_recv(&link, &replica->answer, sizeof replica->answer);
}

/* A send that fails is no concern here: the posted receive of the same world fails too. */
static void send_to(Replica* replica, const Message* message) {
  Link link = link_to(replica);
  mwResult_t result = link_send(&link, message, sizeof *message);
  if (result != mwRemoteError) MW_CHECK(result);
}

/* A message to all that are there. */
static void tell_all(MessageKind kind) {
  static Message message;
  message.kind = kind;
  for (int i = 0; i < POOL; ++i) {
    if (replicas[i].rank != 0) send_to(&replicas[i], &message);
  }
}

static void open_door(Link* link, int replica, int generation) {
  char name[MW_WORLD_NAME_BYTES];
  name_door(name, replica, generation);
  link_join(link, name, 0);
}

/* Takes what still arrived, and says whether nothing can any more. */
static mwResult_t take(Replica* replica) {
  mwResult_t result = mwRequestWait(replica->receiving, -1);
  MW_CHECK(mwRequestFree(replica->receiving));
  replica->receiving = NULL;
  if (result == mwSuccess && replica->answer.kind == MESSAGE_REQUEST) {
    ++replica->credits;
    backlog_answered(replica->answer.id);
    requests_answered(&requests, &replica->answer);
  }
  return result;
}

static void leave(Replica* replica) {
  const int index = (int)(replica - replicas);
  Link none = {NULL, 0};
  for (int i = 0; i < POOL; ++i) replicas[i].rank -= replicas[i].rank > replica->rank;
  replica->rank = 0;
  ++replica->generation;
  joiner_start(&replica->joiner, open_door, &none, index, replica->generation);
}

/* The world broke. All that was under way in it is gone, also what others than the dead one had. */
static void go_on_with_fewer(void) {
  int failed[1 + POOL], count = 1 + POOL;
  int64_t again = 0;
  mwWorld_t broken = world;
  MW_CHECK(mwWorldGetFailedRanks(broken, failed, &count));
  REQUIRE(count == 1 && newcomer < 0);
  for (int i = 0; i < POOL; ++i) {
    if (replicas[i].rank == failed[0]) report(REPORT_FAILURE, 0, i, replicas[i].generation, 0);
    if (replicas[i].receiving != NULL) take(&replicas[i]);
  }
  pool_shrink(&world);
  int dead = -1;
  for (int i = 0; i < POOL; ++i) {
    again += backlog_requeue(i);
    if (replicas[i].rank == failed[0]) dead = i;
  }
  REQUIRE(dead >= 0);
  report(REPORT_REROUTED, 0, dead, replicas[dead].generation, again);
  leave(&replicas[dead]);
  for (int i = 0; i < POOL; ++i) {
    replicas[i].credits = CREDITS;
    if (replicas[i].rank != 0) post_receive(&replicas[i]);
  }
}

/* Somebody knocks. From here on nothing new is sent until all have grown. */
static void welcome(int wait) {
  for (int i = 0; i < POOL && newcomer < 0; ++i) {
    if (!joiner_finished(&replicas[i].joiner, wait, &door)) continue;
    newcomer = i;
    tell_all(MESSAGE_GROW);
  }
}

/* All have answered what they had, and are about to grow. */
static void grow(void) {
  Replica* replica = &replicas[newcomer];
  Invitation invitation;
  memset(&invitation, 0, sizeof invitation);
  MW_CHECK(mwWorldCount(world, &invitation.nranks));
  ++invitation.nranks;
  MW_CHECK(mwGetUniqueId(&invitation.id));
  MW_CHECK(link_send(&door, &invitation, sizeof invitation));
  pool_grow(&world, &invitation.id);
  link_destroy(&door);
  replica->rank = invitation.nranks - 1;
  replica->credits = CREDITS;
  report(REPORT_JOINED, 0, newcomer, replica->generation, 0);
  newcomer = -1;
  for (int i = 0; i < POOL; ++i) {
    if (replicas[i].rank != 0) post_receive(&replicas[i]);
  }
}

/* Waits for an answer, or for the last word before growing or stopping. */
static void listen_for(int timeout_ms) {
  mwRequest_t receiving[POOL];
  int index = -1;
  for (int i = 0; i < POOL; ++i) receiving[i] = replicas[i].receiving;
  /* The result is that of the request, which is looked at below. */
  if (mwRequestWaitAny(POOL, receiving, &index, timeout_ms) == mwInProgress) return;
  REQUIRE(index >= 0 && index < POOL);
  mwResult_t result = take(&replicas[index]);
  if (result == mwRemoteError) {
    go_on_with_fewer();
    return;
  }
  MW_CHECK(result);
  if (replicas[index].answer.kind == MESSAGE_REQUEST) post_receive(&replicas[index]);
}

static int is_quiet(void) {
  for (int i = 0; i < POOL; ++i) {
    if (replicas[i].receiving != NULL) return 0;
  }
  return 1;
}

/* Sends what is queued, oldest first, to the replicas in turn, as far as their credits reach. */
static void dispatch(void) {
  static int turn;
  const Message* message;
  while ((message = backlog_next()) != NULL) {
    int tried = 0;
    while (tried < POOL && (replicas[turn].rank == 0 || replicas[turn].credits == 0)) {
      turn = (turn + 1) % POOL;
      ++tried;
    }
    if (tried == POOL) return;
    backlog_sent(message->id, turn);
    --replicas[turn].credits;
    send_to(&replicas[turn], message);
    turn = (turn + 1) % POOL;
  }
}

static void grow_when_quiet(void) {
  while (newcomer >= 0) {
    if (is_quiet()) grow();
    else listen_for(10);
  }
}

void run_pool_leader(const Options* options) {
  static Message request;
  float values[DIM];
  requests_open(&requests, options);
  pool_join(&world, LEADER_RANK);
  for (int i = 0; i < POOL; ++i) {
    replicas[i].rank = 1 + i;
    replicas[i].generation = 1;
    replicas[i].credits = CREDITS;
    post_receive(&replicas[i]);
  }
  report(REPORT_READY, 0, 0, 0, 0);
  for (;;) {
    while (requests_next(&requests, &request)) {
      if (request.kind == MESSAGE_STOP) break;
      model_embed(request.payload.text, values);
      memcpy(request.payload.values, values, sizeof values);
      backlog_add(&request);
    }
    if (request.kind == MESSAGE_STOP) break;
    dispatch();
    listen_for(1);
    welcome(0);
    grow_when_quiet();
  }
  /* Somebody may be on its way: it is let in before all stop. */
  welcome(1);
  grow_when_quiet();
  tell_all(MESSAGE_STOP);
  while (!is_quiet()) listen_for(10);
  MW_CHECK(mwWorldDestroy(world));
  requests_close(&requests);
}
