/* The worlds around a replica of stage 2, and how they go on when it has died.
 *
 * Rejoin: a world of two on either side of it. They end with the process, and the next one joins two new
 * worlds, with the next number in their names.
 *
 * Reform: one world of three, which has the same name for ever. Its peers bring what they have of it to
 * mwWorldReform, and the replacement, which comes without a handle and may have waited there for long, takes
 * the rank that has become free. All three come out with the same epoch. A process that has other worlds calls
 * it from a thread (Joiner): it ends when all are there.
 */
#include "pipeline.h"

/* Ranks in the world of three. */
enum { STAGE1_RANK, REPLICA_RANK, STAGE3_RANK, TRIO };

static Recovery recovery;

void replicas_init(Recovery chosen) { recovery = chosen; }

static void name_upstream(char* name, int replica, int generation) {
  snprintf(name, MW_WORLD_NAME_BYTES, "stage1-stage2%c.%d", 'a' + replica, generation);
}

static void name_downstream(char* name, int replica, int generation) {
  snprintf(name, MW_WORLD_NAME_BYTES, "stage2%c-stage3.%d", 'a' + replica, generation);
}

static void name_trio(char* name, int replica) {
  snprintf(name, MW_WORLD_NAME_BYTES, "stage2%c", 'a' + replica);
}

static void trio_join(Link* link, int replica, int rank) {
  mwConfig_t config = link_config();
  char name[MW_WORLD_NAME_BYTES];
  name_trio(name, replica);
  MW_CHECK(mwWorldInit(&link->world, name, TRIO, rank, &config));
  link->peer = REPLICA_RANK;
}

/* For those who have lost the replica. The handle becomes that of the next epoch. */
static void trio_reform(Link* link) {
  int rank = -1, before = -1;
  MW_CHECK(mwWorldUserRank(link->world, &before));
  MW_CHECK(mwWorldReform(&link->world, NULL, TRIO, TRIO, NULL));
  MW_CHECK(mwWorldUserRank(link->world, &rank));
  REQUIRE(rank == before);
}

/* For the replacement. It may have come long before anybody has died. */
static void trio_enter(Link* link, int replica) {
  mwConfig_t config = link_config();
  char name[MW_WORLD_NAME_BYTES];
  mwResult_t result;
  int rank = -1;
  name_trio(name, replica);
  do {
    link->world = NULL;
    result = mwWorldReform(&link->world, name, MW_REFORM_ANY, MW_REFORM_ANY, &config);
  } while (result == mwTimeout);
  MW_CHECK(result);
  MW_CHECK(mwWorldUserRank(link->world, &rank));
  REQUIRE(rank == REPLICA_RANK);
}

void upstream_join(Link* link, int replica) {
  char name[MW_WORLD_NAME_BYTES];
  if (recovery == RECOVER_REFORM) {
    trio_join(link, replica, STAGE1_RANK);
    return;
  }
  name_upstream(name, replica, 1);
  link_join(link, name, 0);
}

void downstream_join(Link* link, int replica) {
  char name[MW_WORLD_NAME_BYTES];
  if (recovery == RECOVER_REFORM) {
    trio_join(link, replica, STAGE3_RANK);
    return;
  }
  name_downstream(name, replica, 1);
  link_join(link, name, 0);
}

void upstream_renew(Link* link, int replica, int generation) {
  char name[MW_WORLD_NAME_BYTES];
  if (recovery == RECOVER_REFORM) {
    trio_reform(link);
    return;
  }
  link_abort(link);
  name_upstream(name, replica, generation);
  link_join(link, name, 0);
}

void downstream_renew(Link* link, int replica, int generation) {
  char name[MW_WORLD_NAME_BYTES];
  if (recovery == RECOVER_REFORM) {
    trio_reform(link);
    return;
  }
  link_abort(link);
  name_downstream(name, replica, generation);
  link_join(link, name, 0);
}

void replica_join(Link* upstream, Link* downstream, int replica, int generation) {
  char name[MW_WORLD_NAME_BYTES];
  if (generation > 1) report(REPORT_WAITING, 0, replica, generation, 0);
  if (recovery == RECOVER_REFORM) {
    if (generation == 1) trio_join(upstream, replica, REPLICA_RANK);
    else trio_enter(upstream, replica);
    upstream->peer = STAGE1_RANK;
    downstream->world = upstream->world;
    downstream->peer = STAGE3_RANK;
    return;
  }
  name_upstream(name, replica, generation);
  link_await(upstream, name, 1);
  name_downstream(name, replica, generation);
  link_join(downstream, name, 1);
}

void replica_leave(Link* upstream, Link* downstream) {
  if (downstream->world != upstream->world) link_destroy(downstream);
  link_destroy(upstream);
}
