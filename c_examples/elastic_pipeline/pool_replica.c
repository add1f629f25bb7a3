/* A replica in the one world: does the work of stages 2 and 3. */
#include "pool.h"

/* Waits at the leader's door until there is a place. */
static void knock(mwWorld_t* world, const Options* options) {
  mwConfig_t config = link_config();
  char name[MW_WORLD_NAME_BYTES];
  Invitation invitation;
  Link door;
  report(REPORT_WAITING, 0, options->replica, options->generation, 0);
  name_door(name, options->replica, options->generation);
  link_await(&door, name, 1);
  MW_CHECK(link_recv(&door, &invitation, sizeof invitation));
  MW_CHECK(mwWorldInitRank(world, invitation.nranks, invitation.id, invitation.nranks - 1, &config));
  pool_settle(*world);
  link_destroy(&door);
}

void run_pool_replica(const Options* options) {
  static Message message;
  float transformed[DIM];
  Link leader;
  leader.peer = LEADER_RANK;
  if (options->generation == 1) pool_join(&leader.world, 1 + options->replica);
  else knock(&leader.world, options);
  do {
    mwResult_t result = link_recv(&leader, &message, sizeof message);
    if (result == mwRemoteError) {
      pool_shrink(&leader.world);
      continue;
    }
    MW_CHECK(result);
    message.replica = options->replica;
    message.generation = options->generation;
    if (message.kind == MESSAGE_REQUEST) {
      model_transform(message.payload.values, transformed);
      model_classify(transformed, message.payload.logits);
    }
    /* Where this fails, so does the next receive. */
    result = link_send(&leader, &message, sizeof message);
    if (result != mwRemoteError) MW_CHECK(result);
    if (message.kind == MESSAGE_GROW && result == mwSuccess) pool_grow(&leader.world, NULL);
  } while (message.kind != MESSAGE_STOP);
  link_destroy(&leader);
}
