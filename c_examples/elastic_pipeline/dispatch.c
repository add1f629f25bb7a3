/* Stage 1 turns text into vectors and spreads them over the replicas of stage 2.
 *
 * Nothing is lost, because a copy of every request stays here until the leader says that it has been answered
 * (Message.completed). When a replica dies, all copies that it was sent go to the other one; some of these
 * have been answered already, and the leader drops the second answer.
 *
 * A receive for the next credit is always posted on every replica's link. So the death of a replica is
 * noticed at once, whatever stage 1 is waiting for: that receive ends with mwRemoteError.
 */
#include "pipeline.h"

typedef struct {
  enum { ABSENT, LIVE, STOPPED } state;
  int generation;
  int credits;
  Link link;
  Credit credit;
  mwRequest_t receiving; /* the next credit */
  Joiner joiner;         /* brings the replacement */
} Replica;

static Replica replicas[REPLICAS];

static void replica_live(int index, const Link* link) {
  Replica* replica = &replicas[index];
  replica->link = *link;
  replica->credits = CREDITS;
  replica->receiving = link_post_recv(&replica->link, &replica->credit, sizeof replica->credit);
  replica->state = LIVE;
}

static void replica_died(int index) {
  Replica* replica = &replicas[index];
  report(REPORT_FAILURE, 0, index, replica->generation, 0);
  expect_failed_rank(replica->link.world, 1);
  MW_CHECK(mwRequestFree(replica->receiving));
  replica->receiving = NULL;
  replica->state = ABSENT;
  report(REPORT_REROUTED, 0, index, replica->generation, backlog_requeue(index));
  ++replica->generation;
  joiner_start(&replica->joiner, upstream_renew, &replica->link, index, replica->generation);
}

/* A send that fails is no concern here: the posted receive of the same world fails too. */
static void send_to(Replica* replica, const Message* message) {
  mwResult_t result = link_send(&replica->link, message, sizeof *message);
  if (result != mwRemoteError) MW_CHECK(result);
}

/* Sends what is queued, oldest first, to the replicas in turn, as far as their credits reach. */
static void dispatch(void) {
  static int turn;
  const Message* message;
  while ((message = backlog_next()) != NULL) {
    int tried = 0;
    while (tried < REPLICAS && (replicas[turn].state != LIVE || replicas[turn].credits == 0)) {
      turn = (turn + 1) % REPLICAS;
      ++tried;
    }
    if (tried == REPLICAS) return;
    backlog_sent(message->id, turn);
    --replicas[turn].credits;
    send_to(&replicas[turn], message);
    turn = (turn + 1) % REPLICAS;
  }
}

static void request_came(Message* message) {
  float values[DIM];
  backlog_completed(message->completed);
  model_embed(message->payload.text, values);
  memcpy(message->payload.values, values, sizeof values);
  backlog_add(message);
}

static void credit_came(int index) {
  Replica* replica = &replicas[index];
  mwResult_t result = mwRequestWait(replica->receiving, -1);
  if (result == mwRemoteError) {
    replica_died(index);
    return;
  }
  MW_CHECK(result);
  MW_CHECK(mwRequestFree(replica->receiving));
  replica->receiving = NULL;
  if (replica->credit.kind == MESSAGE_STOP) {
    replica->state = STOPPED;
    return;
  }
  ++replica->credits;
  replica->receiving = link_post_recv(&replica->link, &replica->credit, sizeof replica->credit);
}

/* Takes in replacements whose world stands by now. */
static void welcome(int wait) {
  Link link;
  for (int i = 0; i < REPLICAS; ++i) {
    if (!joiner_finished(&replicas[i].joiner, wait, &link)) continue;
    replica_live(i, &link);
    report(REPORT_JOINED, 0, i, replicas[i].generation, 0);
  }
}

/* Tells all replicas, also one that is still joining, and waits for their last credit. */
static void stop_replicas(const Message* stop) {
  welcome(1);
  for (int i = 0; i < REPLICAS; ++i) MW_CHECK(link_send(&replicas[i].link, stop, sizeof *stop));
  for (int i = 0; i < REPLICAS; ++i) {
    while (replicas[i].state == LIVE) credit_came(i);
    REQUIRE(replicas[i].state == STOPPED);
    link_destroy(&replicas[i].link);
  }
}

void run_stage1(void) {
  static Message incoming;
  Link leader;
  link_join(&leader, "leader-stage1", 1);
  for (int i = 0; i < REPLICAS; ++i) {
    Link link;
    replicas[i].generation = 1;
    upstream_join(&link, i);
    replica_live(i, &link);
  }

  mwRequest_t requests[1 + REPLICAS];
  requests[0] = link_post_recv(&leader, &incoming, sizeof incoming);
  for (;;) {
    int index = -1;
    for (int i = 0; i < REPLICAS; ++i) requests[1 + i] = replicas[i].receiving;
    /* The result is that of the request, which is looked at below. */
    mwResult_t result = mwRequestWaitAny(1 + REPLICAS, requests, &index, 10);
    welcome(0);
    REQUIRE(result == mwInProgress || (index >= 0 && index <= REPLICAS));
    if (result == mwInProgress) {
      /* Nothing came; a replacement may have. */
    } else if (index > 0) {
      credit_came(index - 1);
    } else {
      MW_CHECK(mwRequestWait(requests[0], -1));
      MW_CHECK(mwRequestFree(requests[0]));
      if (incoming.kind == MESSAGE_STOP) break;
      request_came(&incoming);
      requests[0] = link_post_recv(&leader, &incoming, sizeof incoming);
    }
    dispatch();
  }
  stop_replicas(&incoming);
  link_destroy(&leader);
}
