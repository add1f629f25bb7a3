/* Copies of the requests that are not answered yet, to be sent once more when a replica dies. */
#include "pipeline.h"

typedef struct {
  enum { EMPTY, QUEUED, SENT } state;
  int replica;
  Message message;
} Slot;

static Slot slots[WINDOW];
static uint64_t oldest; /* every id below is answered */
static uint64_t newest; /* every id from here on has not come yet */

void backlog_add(const Message* message) {
  Slot* slot = &slots[message->id % WINDOW];
  REQUIRE(message->id == newest && slot->state == EMPTY);
  ++newest;
  slot->message = *message;
  slot->state = QUEUED;
}

void backlog_answered(uint64_t id) {
  if (id < oldest) return; /* For the second time. */
  slots[id % WINDOW].state = EMPTY;
  while (oldest < newest && slots[oldest % WINDOW].state == EMPTY) ++oldest;
}

void backlog_completed(uint64_t end) {
  while (oldest < end) backlog_answered(oldest);
}

const Message* backlog_next(void) {
  for (uint64_t id = oldest; id < newest; ++id) {
    if (slots[id % WINDOW].state == QUEUED) return &slots[id % WINDOW].message;
  }
  return NULL;
}

void backlog_sent(uint64_t id, int replica) {
  slots[id % WINDOW].state = SENT;
  slots[id % WINDOW].replica = replica;
}

int64_t backlog_requeue(int replica) {
  int64_t count = 0;
  for (uint64_t id = oldest; id < newest; ++id) {
    Slot* slot = &slots[id % WINDOW];
    if (slot->state != SENT || slot->replica != replica) continue;
    slot->state = QUEUED;
    ++count;
  }
  return count;
}
