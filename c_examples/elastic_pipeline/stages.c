/* Stage 2 computes, stage 3 collects from all replicas and finishes. */
#include "pipeline.h"

void run_stage2(const Options* options) {
  static Message message, result;
  Link upstream, downstream;
  Credit credit;
  memset(&credit, 0, sizeof credit);
  replica_join(&upstream, &downstream, options->replica, options->generation);
  do {
    MW_CHECK(link_recv(&upstream, &message, sizeof message));
    result = message;
    result.replica = options->replica;
    result.generation = options->generation;
    if (message.kind == MESSAGE_REQUEST) model_transform(message.payload.values, result.payload.values);
    MW_CHECK(link_send(&downstream, &result, sizeof result));
    credit.kind = message.kind;
    credit.id = message.id;
    MW_CHECK(link_send(&upstream, &credit, sizeof credit));
  } while (message.kind == MESSAGE_REQUEST);
  replica_leave(&upstream, &downstream);
}

typedef struct {
  int generation;
  int stopped;
  Link link;
  Message message;
  mwRequest_t receiving;
  Joiner joiner;
} Source;

static Source sources[REPLICAS];

static void source_live(Source* source, const Link* link) {
  source->link = *link;
  source->receiving = link_post_recv(&source->link, &source->message, sizeof source->message);
}

static void source_died(int index) {
  Source* source = &sources[index];
  report(REPORT_FAILURE, 0, index, source->generation, 0);
  expect_failed_rank(source->link.world, 1);
  ++source->generation;
  joiner_start(&source->joiner, downstream_renew, &source->link, index, source->generation);
}

/* Takes in replacements whose world stands by now; with `wait`, when it does. */
static void welcome(int wait) {
  Link link;
  for (int i = 0; i < REPLICAS; ++i) {
    if (!joiner_finished(&sources[i].joiner, wait, &link)) continue;
    source_live(&sources[i], &link);
    report(REPORT_JOINED, 0, i, sources[i].generation, 0);
  }
}

/* A result of stage 2 came, or its replica died. */
static void source_ready(int index, Link* leader) {
  static Message answer;
  Source* source = &sources[index];
  mwResult_t result = mwRequestWait(source->receiving, -1);
  MW_CHECK(mwRequestFree(source->receiving));
  source->receiving = NULL;
  if (result == mwRemoteError) {
    source_died(index);
    return;
  }
  MW_CHECK(result);
  if (source->message.kind == MESSAGE_STOP) {
    source->stopped = 1;
    link_destroy(&source->link);
    return;
  }
  answer = source->message;
  model_classify(source->message.payload.values, answer.payload.logits);
  source->receiving = link_post_recv(&source->link, &source->message, sizeof source->message);
  MW_CHECK(link_send(leader, &answer, sizeof answer));
}

void run_stage3(void) {
  static Message stop;
  Link leader;
  for (int i = 0; i < REPLICAS; ++i) {
    Link link;
    sources[i].generation = 1;
    downstream_join(&link, i);
    source_live(&sources[i], &link);
  }
  link_join(&leader, "stage3-leader", 1);

  while (!sources[0].stopped || !sources[1].stopped) {
    mwRequest_t requests[REPLICAS];
    int index = -1;
    /* With one replica stopped and the other one joining, there is nothing else to wait for. */
    welcome(sources[0].receiving == NULL && sources[1].receiving == NULL);
    for (int i = 0; i < REPLICAS; ++i) requests[i] = sources[i].receiving;
    /* The result is that of the request, which source_ready looks at. */
    if (mwRequestWaitAny(REPLICAS, requests, &index, 10) == mwInProgress) continue;
    REQUIRE(index >= 0 && index < REPLICAS);
    source_ready(index, &leader);
  }
  stop.kind = MESSAGE_STOP;
  MW_CHECK(link_send(&leader, &stop, sizeof stop));
  link_destroy(&leader);
}
