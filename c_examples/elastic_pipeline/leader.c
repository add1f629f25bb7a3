/* The leader feeds requests at a fixed rate and checks every answer. */
#include "pipeline.h"

void run_leader(const Options* options) {
  static Message outgoing, incoming;
  Link stage1, stage3;
  Requests book;
  requests_open(&book, options);
  /* Stage 3 joins this last world after all its others, so once it stands all of them do. */
  link_join(&stage1, "leader-stage1", 0);
  link_join(&stage3, "stage3-leader", 0);
  report(REPORT_READY, 0, 0, 0, 0);

  /* One send and one receive are on their way at the same time: the leader never waits for one of them alone,
   * so the pipeline cannot fill up and lock. */
  mwRequest_t requests[2] = {NULL, NULL};
  requests[1] = link_post_recv(&stage3, &incoming, sizeof incoming);
  for (;;) {
    int index = -1;
    if (requests[0] == NULL && requests_next(&book, &outgoing)) {
      requests[0] = link_post_send(&stage1, &outgoing, sizeof outgoing);
    }
    if (mwRequestWaitAny(2, requests, &index, 1) == mwInProgress) continue;
    REQUIRE(index == 0 || index == 1);
    MW_CHECK(mwRequestWait(requests[index], -1));
    MW_CHECK(mwRequestFree(requests[index]));
    requests[index] = NULL;
    if (index == 0) continue;
    if (incoming.kind == MESSAGE_STOP) break;
    requests_answered(&book, &incoming);
    requests[1] = link_post_recv(&stage3, &incoming, sizeof incoming);
  }
  if (requests[0] != NULL) {
    MW_CHECK(mwRequestWait(requests[0], -1));
    MW_CHECK(mwRequestFree(requests[0]));
  }
  link_destroy(&stage3);
  link_destroy(&stage1);
  requests_close(&book);
}
