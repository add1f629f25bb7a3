/* The world of the leader and all replicas, in the hands of its members. */
#include "pool.h"

void pool_join(mwWorld_t* world, int rank) {
  mwConfig_t config = link_config();
  MW_CHECK(mwWorldInit(world, "pool", 1 + POOL, rank, &config));
}

void pool_shrink(mwWorld_t* world) {
  mwWorld_t smaller = NULL;
  mwResult_t result;
  do {
    int failed[1 + POOL];
    int count = 1 + POOL;
    MW_CHECK(mwWorldGetFailedRanks(*world, failed, &count));
    REQUIRE(count > 0 && count <= 1 + POOL);
    result = mwWorldShrink(*world, failed, count, MW_SHRINK_DEFAULT, &smaller, NULL);
  } while (result == mwRemoteError); /* Another one has failed meanwhile. */
  MW_CHECK(result);
  MW_CHECK(mwWorldDestroy(*world));
  *world = smaller;
}

void pool_grow(mwWorld_t* world, const mwUniqueId* id) {
  mwWorld_t larger = NULL;
  int count = 0;
  MW_CHECK(mwWorldCount(*world, &count));
  MW_CHECK(mwWorldGrow(*world, count + 1, id, &larger, NULL));
  MW_CHECK(mwWorldDestroy(*world));
  *world = larger;
  pool_settle(larger);
}

void pool_settle(mwWorld_t world) {
  mwResult_t result = mwBarrier(world, NULL);
  /* Where this fails, so does the next receive. */
  if (result != mwRemoteError) MW_CHECK(result);
}

void name_door(char* name, int replica, int generation) {
  snprintf(name, MW_WORLD_NAME_BYTES, "leader-replica%c.%d", 'a' + replica, generation);
}
