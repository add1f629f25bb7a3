/* One world of a leader and all replicas: what pool.c, pool_leader.c and pool_replica.c share.
 *
 * When a replica dies the world breaks for all. Everybody left calls mwWorldShrink, which takes a moment, and
 * goes on in a world that has one member less. The replacement knocks at the leader's door, a world of these
 * two. The leader tells all replicas in their turn (MESSAGE_GROW), each of them has then nothing under way any
 * more, and all call mwWorldGrow. The newcomer has the unique id from the leader, through the door.
 *
 * Nobody is killed before the last replacement works: a death while the world grows ends the demonstration.
 */
#ifndef ELASTIC_PIPELINE_POOL_H
#define ELASTIC_PIPELINE_POOL_H

#include "pipeline.h"

/* Rank of the leader: shrinking leaves the order as it is, growing appends. */
enum { LEADER_RANK = 0 };

/* What the leader says to a newcomer. */
typedef struct {
  mwUniqueId id;
  int nranks; /* the newcomer is the last of them */
} Invitation;

/* Joins the first world, of the leader and of all replicas. */
void pool_join(mwWorld_t* world, int rank);
/* Goes on without those who have failed. */
void pool_shrink(mwWorld_t* world);
/* Goes on with one more. `id` is the leader's, who has given it to the newcomer; NULL on the others. */
void pool_grow(mwWorld_t* world, const mwUniqueId* id);
/* For all members of a larger world, before anything else. Nobody comes out before all have its handle: a death
 * from then on breaks a world that all can shrink. Before, it would make mwWorldGrow fail for those who are
 * still in it. */
void pool_settle(mwWorld_t world);
void name_door(char* name, int replica, int generation);

#endif
