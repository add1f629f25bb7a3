/* A link is what one process has of a world: its handle, and whom it talks to there. */
#include "pipeline.h"

enum { JOIN_TIMEOUT_MS = 30000 };

mwConfig_t link_config(void) {
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  config.joinTimeoutMs = JOIN_TIMEOUT_MS;
  return config;
}

void link_join(Link* link, const char* name, int rank) {
  mwConfig_t config = link_config();
  MW_CHECK(mwWorldInit(&link->world, name, 2, rank, &config));
  link->peer = 1 - rank;
}

void link_await(Link* link, const char* name, int rank) {
  mwConfig_t config = link_config();
  mwResult_t result;
  do {
    result = mwWorldInit(&link->world, name, 2, rank, &config);
  } while (result == mwTimeout);
  MW_CHECK(result);
  link->peer = 1 - rank;
}

void link_destroy(Link* link) { MW_CHECK(mwWorldDestroy(link->world)); }

void link_abort(Link* link) { MW_CHECK(mwWorldAbort(link->world)); }

mwResult_t link_send(Link* link, const void* data, size_t size) {
  return mwSend(data, size, mwUint8, link->peer, link->world, NULL);
}

mwResult_t link_recv(Link* link, void* data, size_t size) {
  return mwRecv(data, size, mwUint8, link->peer, link->world, NULL);
}

mwRequest_t link_post_recv(Link* link, void* data, size_t size) {
  mwRequest_t request;
  MW_CHECK(mwGroupStart());
  MW_CHECK(mwRecv(data, size, mwUint8, link->peer, link->world, NULL));
  MW_CHECK(mwGroupSubmit(&request));
  return request;
}

mwRequest_t link_post_send(Link* link, const void* data, size_t size) {
  mwRequest_t request;
  MW_CHECK(mwGroupStart());
  MW_CHECK(mwSend(data, size, mwUint8, link->peer, link->world, NULL));
  MW_CHECK(mwGroupSubmit(&request));
  return request;
}

static void* join_in_background(void* argument) {
  Joiner* joiner = argument;
  joiner->bring(&joiner->link, joiner->replica, joiner->generation);
  pthread_mutex_lock(&joiner->lock);
  joiner->joined = 1;
  pthread_mutex_unlock(&joiner->lock);
  return NULL;
}

void joiner_start(Joiner* joiner, Bring* bring, const Link* link, int replica, int generation) {
  REQUIRE(!joiner->running);
  joiner->bring = bring;
  joiner->link = *link;
  joiner->replica = replica;
  joiner->generation = generation;
  joiner->joined = 0;
  REQUIRE(pthread_mutex_init(&joiner->lock, NULL) == 0);
  REQUIRE(pthread_create(&joiner->thread, NULL, join_in_background, joiner) == 0);
  joiner->running = 1;
}

int joiner_finished(Joiner* joiner, int wait, Link* link) {
  if (!joiner->running) return 0;
  pthread_mutex_lock(&joiner->lock);
  int joined = joiner->joined;
  pthread_mutex_unlock(&joiner->lock);
  if (!joined && !wait) return 0;
  pthread_join(joiner->thread, NULL);
  pthread_mutex_destroy(&joiner->lock);
  joiner->running = 0;
  *link = joiner->link;
  return 1;
}
