/* A link is one end of a world of two processes. */
#include "pipeline.h"

enum { JOIN_TIMEOUT_MS = 30000 };

void link_join(Link* link, const char* name, int rank) {
  mwConfig_t config = MW_CONFIG_INITIALIZER;
  config.joinTimeoutMs = JOIN_TIMEOUT_MS;
  MW_CHECK(mwWorldInit(&link->world, name, 2, rank, &config));
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
  link_join(&joiner->link, joiner->name, 0);
  pthread_mutex_lock(&joiner->lock);
  joiner->joined = 1;
  pthread_mutex_unlock(&joiner->lock);
  return NULL;
}

void joiner_start(Joiner* joiner, const char* name) {
  REQUIRE(!joiner->running);
  snprintf(joiner->name, sizeof joiner->name, "%s", name);
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

void name_upstream(char* name, int replica, int generation) {
  snprintf(name, MW_WORLD_NAME_BYTES, "stage1-stage2%c.%d", 'a' + replica, generation);
}

void name_downstream(char* name, int replica, int generation) {
  snprintf(name, MW_WORLD_NAME_BYTES, "stage2%c-stage3.%d", 'a' + replica, generation);
}
