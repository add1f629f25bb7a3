/*
 * multiworld: many NCCL-like communicators per process, each its own fault domain.
 *
 * Generated from src/capi by cbindgen; change it there and run MW_BLESS=1 cargo test --test header.
 *
 * Worlds. A world is a communicator, and a fault domain: when one of its members dies, hangs or is cut off,
 * the world breaks within milliseconds on every survivor, and all other worlds of the process go on at full
 * speed. A process may be in any number of worlds, and several ranks of one world may be threads of one
 * process. The operations, their arguments and the order of these are those of nccl.h.
 *
 * Ownership. Every handle is made by one function and freed by one: mwWorld_t by mwWorldDestroy or
 * mwWorldAbort, mwRequest_t by mwRequestFree, an operator by mwRedOpDestroy or with its world. Handles are
 * generational numbers, not addresses: using NULL, a freed one or one of another kind is mwInvalidArgument
 * and never a crash. Buffers and strings stay the caller's; strings are copied, buffers must be valid until
 * their operation is done. What a function returns as const char* belongs to the library.
 *
 * Threads. Every function may be called from any thread at any time; aborting, revoking and asking also while
 * other threads are inside operations of the same world. Operations of one world execute in the order in
 * which they were called, and all ranks have to call the collective ones in the same order. The last error,
 * and the groups, are each thread's own.
 *
 * Completion. On the host backend (CPU memory; the stream is NULL) a call returns when its operation is done.
 * Between mwGroupStart and mwGroupEnd all operations progress together and mwGroupEnd returns when all are
 * done; with mwGroupSubmit nothing blocks. Every wait ends: when the operation is done, when the world
 * breaks, is revoked or aborted, and at the latest when its deadline (timeoutMs of mwConfig_t) has passed.
 *
 * Errors. Every function returns an mwResult_t, and mwGetLastError has a sentence to it: what broke, and who
 * caused it. mwInvalidArgument, and mwInvalidUsage for a call that is not allowed here and now, mean that the
 * call had no effect. Any other error of an operation breaks its world, and only that: pending and later
 * operations return the error, on all members. What becomes of worlds is also told by events, see
 * mwEventNext. The library never ends the process.
 *
 * Groups. An operation that is called inside a group is checked at once. If one is refused, the whole group
 * is: its mwGroupEnd or mwGroupSubmit returns that error and starts nothing.
 *
 * Settings come from mwConfig_t, else from the environment variables that are named with its fields, else
 * from the defaults. MW_DEBUG=warn, info, debug or trace prints log lines to stderr; without it nothing is
 * printed. MW_DISABLE (any of futex_waitv, robust, cma, memfd, separated by commas) does without facilities
 * of the kernel.
 */

#ifndef MULTIWORLD_H
#define MULTIWORLD_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

// What `magic` of an initialised mwConfig_t is.
#define MW_CONFIG_MAGIC 0x6d77636fu

// An int of mwConfig_t that has not been set.
#define MW_CONFIG_UNDEF_INT INT_MIN

// What an mwConfig_t has to be initialised with: nothing is set.
#define MW_CONFIG_INITIALIZER \
  { sizeof(mwConfig_t), MW_CONFIG_MAGIC, MW_VERSION_CODE, NULL, NULL, NULL, NULL, MW_CONFIG_UNDEF_INT, \
    MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, NULL, \
    MW_CONFIG_UNDEF_INT }

// A color for mwWorldSplit: this rank takes part in the call and gets no new world.
#define MW_SPLIT_NOCOLOR (-1)

// Other names of data types, as in nccl.h.
#define mwChar mwInt8
#define mwInt mwInt32
#define mwHalf mwFloat16
#define mwFloat mwFloat32
#define mwDouble mwFloat64

// Handle of a world. Threads may share it.
typedef struct mwWorld* mwWorld_t;

// Handle of the operations of a group that was submitted. Threads may share it.
typedef struct mwRequest* mwRequest_t;

// A cudaStream_t on the nccl backend, NULL on the host backend.
typedef struct CUstream_st* mwStream_t;

// First number of the version: changes when programs have to be changed.
#define MW_MAJOR 0

// Second number of the version: changes when functions are added.
#define MW_MINOR 1

// Third number of the version.
#define MW_PATCH 0

// The version as one number: major * 10000 + minor * 100 + patch.
#define MW_VERSION_CODE 100

// Bytes of a unique id.
#define MW_UNIQUE_ID_BYTES 128

// Bytes of the longest world name, with its NUL.
#define MW_WORLD_NAME_BYTES 64

// For mwWorldShrink: survivors move up, so that their order stays.
#define MW_SHRINK_DEFAULT 0

// For mwWorldShrink: every survivor keeps its rank, apart from those whose rank is not below the new size: these
// take the places of the excluded ones, in their order.
#define MW_SHRINK_KEEP_RANKS 1

// For mwWorldReform: a newcomer leaves the number of members to the survivors.
#define MW_REFORM_ANY 0

// Bytes of an event's reason, with its NUL.
#define MW_REASON_BYTES 256

// What a call came to. The values up to 8 are those of ncclResult_t; values are only ever added.
typedef enum {
  // It worked.
  mwSuccess = 0,
  // A CUDA call failed.
  mwUnhandledCudaError = 1,
  // A system call failed.
  mwSystemError = 2,
  // A bug in multiworld.
  mwInternalError = 3,
  // An argument is wrong; the call had no effect.
  mwInvalidArgument = 4,
  // The call is not allowed here or now, or the ranks called different operations.
  mwInvalidUsage = 5,
  // Another member of the world failed, left or was cut off.
  mwRemoteError = 6,
  // Not done yet. Not an error.
  mwInProgress = 7,
  // A deadline passed.
  mwTimeout = 8,
  // A member revoked the world.
  mwRevoked = 100,
  // This member aborted the world.
  mwAborted = 101,
  // The secret of the store or of the world is wrong.
  mwUnauthorized = 102,
} mwResult_t;

// What a world is in the course of its life. Values are only ever added.
typedef enum {
  // It takes operations.
  mwWorldActive = 0,
  // A member failed or a deadline passed.
  mwWorldBroken = 1,
  // A member revoked it.
  mwWorldRevoked = 2,
  // This member aborted it.
  mwWorldAborted = 3,
  // This member finalized it.
  mwWorldFinalized = 4,
} mwWorldState_t;

// What an event is about. Values are only ever added, so be ready for others.
typedef enum {
  // A member died, hung or was cut off; one event per world and rank.
  mwEventRankFailed = 1,
  // The world broke without a dead member: a deadline passed, or the ranks called different operations.
  mwEventWorldBroken = 2,
  // A member revoked the world.
  mwEventWorldRevoked = 3,
  // A member finalized the world.
  mwEventRankLeft = 4,
  // The store went away. Worlds that exist go on; only joining needs it.
  mwEventStoreLost = 5,
} mwEventKind_t;

// Element types, with the values of ncclDataType_t. nccl.h's other names for them exist, too: mwChar, mwInt,
// mwHalf, mwFloat, mwDouble.
typedef enum {
  // 8 bits, signed.
  mwInt8 = 0,
  // 8 bits.
  mwUint8 = 1,
  // 32 bits, signed.
  mwInt32 = 2,
  // 32 bits.
  mwUint32 = 3,
  // 64 bits, signed.
  mwInt64 = 4,
  // 64 bits.
  mwUint64 = 5,
  // IEEE 754 half precision.
  mwFloat16 = 6,
  // IEEE 754 single precision.
  mwFloat32 = 7,
  // IEEE 754 double precision.
  mwFloat64 = 8,
  // The upper half of a single precision number.
  mwBfloat16 = 9,
  // 8 bits: 4 of exponent, 3 of mantissa; no infinities.
  mwFloat8e4m3 = 10,
  // 8 bits: 5 of exponent, 2 of mantissa.
  mwFloat8e5m2 = 11,
  // The number of types; not a type.
  mwNumTypes = 12,
} mwDataType_t;

// Reductions, with the values of ncclRedOp_t. mwRedOpCreatePreMulSum makes further ones, numbered from
// mwNumOps.
typedef enum {
  // The sum.
  mwSum = 0,
  // The product.
  mwProd = 1,
  // The largest.
  mwMax = 2,
  // The smallest.
  mwMin = 3,
  // The sum divided by the number of ranks.
  mwAvg = 4,
  // The number of built-in reductions; not one of them.
  mwNumOps = 5,
  // No operator has a number above this one.
  mwMaxRedOp = 2147483647,
} mwRedOp_t;

// Where the scalar of mwRedOpCreatePreMulSum lies, and when it is read.
typedef enum {
  // In memory that the operations reach (host memory on the host backend): read by every operation that
  // uses it when that is posted, so it must stay valid until the operator is destroyed.
  mwScalarDevice = 0,
  // In host memory: read by mwRedOpCreatePreMulSum itself.
  mwScalarHostImmediate = 1,
} mwScalarResidence_t;

// Names a world that is about to be created. Holds where its first member can be reached and the world's
// secret: whoever has it can join. Copy it to the other ranks by any means, as bytes.
typedef struct {
  // Meaningful to the library only.
  char internal[MW_UNIQUE_ID_BYTES];
} mwUniqueId;

// Settings of a world. Start from MW_CONFIG_INITIALIZER. A setting that is not made (a pointer that is NULL,
// an int that is MW_CONFIG_UNDEF_INT) comes from the environment variable that is named with it, and if that
// is not set or empty, from the default. The strings are copied; they need to live for the call only.
typedef struct {
  // sizeof(mwConfig_t).
  size_t size;
  // MW_CONFIG_MAGIC.
  unsigned int magic;
  // MW_VERSION_CODE.
  unsigned int version;
  // MW_STORE: where named worlds meet. "tcp://host:port" is the built-in store, which rank 0 runs if nobody listens
  // there; "file:///directory" a directory, for the processes of one user on one machine;
  // "etcd://host:port,host:port..." an etcd cluster, with user:password@ in front of the hosts if it asks for them,
  // and with "etcds" through TLS, for which MW_ETCD_CACERT, MW_ETCD_CERT and MW_ETCD_KEY name files.
  const char *store;
  // MW_TRANSPORT: "auto" (default), "shm" (shared memory only) or "tcp".
  const char *transport;
  // MW_IFNAME: which interfaces to use, in the syntax of NCCL_SOCKET_IFNAME. Of these a process uses the one that
  // leads to the store, else the first.
  const char *ifname;
  // MW_SECRET, or the content of the file MW_SECRET_FILE: what members of named worlds share, at least 16
  // bytes. Without one, a named world has to stay on this machine (its store on loopback or in a directory), unless
  // MW_INSECURE=1 lets everybody in who reaches the store.
  const char *secret;
  // MW_TIMEOUT_MS: deadline of every operation, default 600000.
  int timeoutMs;
  // MW_JOIN_TIMEOUT_MS: deadline of joining and of reforming, default 60000.
  int joinTimeoutMs;
  // MW_HEARTBEAT_INTERVAL_MS: how often a sign of life is given, default 200.
  int heartbeatIntervalMs;
  // MW_HEARTBEAT_TIMEOUT_MS: silence after which a member counts as failed, default 1000, at least two
  // intervals.
  int heartbeatTimeoutMs;
  // CUDA device of the nccl backend, default the one that is current in the calling thread; -1 (default) on the host
  // backend.
  int device;
  // MW_BACKEND: "host" (default) for host memory, "nccl" for device memory, through NCCL.
  const char *backend;
  // MW_REFORM_WAIT_MS: how long mwWorldReform waits for more members when there are `minRanks`, default 500.
  int reformWaitMs;
} mwConfig_t;

// Counters of this member of a world, since it joined.
typedef struct {
  // Set by the caller to sizeof(mwWorldStats_t).
  size_t size;
  // Operations that were done.
  uint64_t operations;
  // Bytes sent to other ranks.
  uint64_t bytesSent;
  // Bytes received from other ranks.
  uint64_t bytesReceived;
  // Ranks reached through shared memory.
  int shmPeers;
  // Ranks reached through TCP.
  int tcpPeers;
  // Memory that the world holds, shared memory included.
  uint64_t memoryBytes;
} mwWorldStats_t;

// Something that became of a world.
typedef struct {
  // What happened.
  mwEventKind_t kind;
  // What operations of the world return from now on; mwSuccess where they go on.
  mwResult_t result;
  // The world, which may be destroyed by now; NULL for events of the process.
  mwWorld_t world;
  // The world's name.
  char name[MW_WORLD_NAME_BYTES];
  // The world's epoch.
  uint64_t epoch;
  // The rank that failed or left, else -1.
  int rank;
  // When it was noticed: CLOCK_MONOTONIC, in nanoseconds.
  uint64_t timestampNs;
  // One sentence, cut to fit.
  char reason[MW_REASON_BYTES];
} mwEvent_t;

// Called with an event, which is valid for the call only, and the `user` of mwWorldSetCallback. It runs on a
// thread of the library that only runs callbacks, one at a time, so a slow one delays later callbacks and
// nothing else. It may call every function of this library; it must not throw an exception or leave by
// longjmp.
typedef void (*mwEventCallback_t)(const mwEvent_t *event, void *user);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Writes the version of the library, which may be newer than the MW_VERSION_CODE a program was compiled
// with.
mwResult_t mwGetVersion(int *version);

// What a result means, in a few words. Never NULL, valid for ever.
const char *mwGetErrorString(mwResult_t result);

// One sentence about an error: with a world that is no longer active, why it is not; otherwise (the world is
// active, NULL, or not a world) the last error that a call of this thread returned. The text of a wrong
// argument begins with the argument's name. A call that succeeds does not clear it, as in NCCL. Never NULL;
// empty when there was no error. Valid until this thread's next call of a function of this library; do not
// free.
const char *mwGetLastError(mwWorld_t world);

// Makes the id of a new world. One process does this, gives the id to all ranks, and every rank (this
// process, too, if it is one of them) calls mwWorldInitRank with it. The process has to live until all have
// joined.
mwResult_t mwGetUniqueId(mwUniqueId *id);

// Joins the world `name` (1 to 63 bytes of UTF-8) as `rank` of `nranks` and waits until all are there. The
// ranks meet in the store (`store` of the configuration, MW_STORE); at a tcp:// address rank 0 starts one if
// nobody listens there yet. With -1 for both numbers they come from MW_NRANKS and MW_RANK, or else from torchrun,
// Open MPI or Slurm. `config` NULL means environment and defaults. On an error, `*world` is NULL; mwTimeout
// when not all came in time.
mwResult_t mwWorldInit(mwWorld_t *world, const char *name, int nranks, int rank, const mwConfig_t *config);

// Joins the world of a unique id (see mwGetUniqueId) as `rank` of `nranks` and waits until all are there.
// Needs no store and no secret of its own. Otherwise as mwWorldInit.
mwResult_t mwWorldInitRank(mwWorld_t *world, int nranks, mwUniqueId id, int rank, const mwConfig_t *config);

// Makes one world with all its ranks in this process: `worlds[i]` becomes rank i of `nranks`, for a thread
// each. On an error all are NULL.
mwResult_t mwWorldInitAll(mwWorld_t *worlds, int nranks, const mwConfig_t *config);

// Splits a world: every member calls this, those that pass the same `color` (0 or more) get a new world
// together, ranked by `key` and then by their old rank; those with MW_SPLIT_NOCOLOR get NULL. The old world
// goes on. `config` NULL means the old world's settings. On an error, `*newworld` is NULL.
mwResult_t mwWorldSplit(mwWorld_t world, int color, int key, mwWorld_t *newworld, const mwConfig_t *config);

// Ends the world for all of its members: pending and later operations return mwRevoked, on every rank. Meant
// for a member that has seen an error which the others cannot see. Does not wait for anybody; destroy is
// still needed.
mwResult_t mwWorldRevoke(mwWorld_t world);

// Leaves a world at once, whatever it is doing, and frees it: operations that other threads wait for return
// mwAborted, the other members see this rank as failed. Never waits for another rank. The handle is gone
// afterwards; there is nothing left to destroy. Allowed at any time, also inside a group.
mwResult_t mwWorldAbort(mwWorld_t world);

// Finishes what this rank has posted in the world and tells the others that it leaves in good order.
// Afterwards only queries are allowed; destroy is still needed.
mwResult_t mwWorldFinalize(mwWorld_t world);

// Finalizes a world, if that has not been done and the world is active, and frees it. The handle is gone
// afterwards, whatever is returned: an error tells that finalizing failed. The operators and the callback of
// the world are gone, too; requests of it stay until they are freed.
mwResult_t mwWorldDestroy(mwWorld_t world);

// Makes a world of the members of `world` that are not in `excludeRanks` (`excludeCount` ranks of it). All of those
// call this, with the same list; mwWorldGetFailedRanks has it after a failure. `world` may have broken or been
// revoked; it stays as it is and is still to be destroyed or aborted. `flags` is MW_SHRINK_DEFAULT or
// MW_SHRINK_KEEP_RANKS, `config` NULL means the settings of `world`. On an error, `*newworld` is NULL: mwRemoteError
// when another survivor has failed meanwhile (mwWorldGetFailedRanks has it then), mwTimeout when one did not come.
mwResult_t mwWorldShrink(mwWorld_t world,
                         const int *excludeRanks,
                         int excludeCount,
                         int flags,
                         mwWorld_t *newworld,
                         const mwConfig_t *config);

// Makes a world of `nranks` members of those of `world`, which keep their ranks, and of newcomers, which call
// mwWorldInitRank with a new unique id, `nranks` and the ranks behind. All members of `world` call this, one of them
// with the id, the others with `id` NULL. `world` stays as it is and goes on. `config` NULL means the settings of
// `world`. On an error, `*newworld` is NULL.
mwResult_t mwWorldGrow(mwWorld_t world, int nranks, const mwUniqueId *id, mwWorld_t *newworld, const mwConfig_t *config);

// Goes on with the next epoch of a world that was made by name (mwWorldInit): members of it pass their handle in
// `*world`, whether it has broken, was revoked or is active, and newcomers, among them spares that have waited here
// since before it was needed, pass NULL and the `name`. All meet in the store. Survivors keep their ranks and newcomers
// take the places of those who have failed or left, the lowest first; without enough newcomers the last ones move up.
//
// It begins when all members of the old epoch have called this or are gone and there are `maxRanks`, or `minRanks` and
// nobody more has come for reformWaitMs. Members that are alive and do not call this are waited for half of
// joinTimeoutMs and then left out. All callers pass the same numbers, newcomers may pass MW_REFORM_ANY for both. A
// newcomer that there is no place for waits for the epoch after.
//
// On success `*world` is the new epoch's handle; the old one is gone, with what was under way in it and its operators,
// and its callback is the new one's. All who come out have the same members. On an error `*world` is as it was, and
// nobody else is disturbed: mwTimeout when too few came, mwInvalidArgument when others have said other numbers,
// mwRemoteError when the others went on without this one. `name` may be NULL with a handle, `config` NULL then means
// the settings of `*world`.
mwResult_t mwWorldReform(mwWorld_t *world, const char *name, int minRanks, int maxRanks, const mwConfig_t *config);

// Writes the number of ranks.
mwResult_t mwWorldCount(mwWorld_t world, int *count);

// Writes the caller's rank.
mwResult_t mwWorldUserRank(mwWorld_t world, int *rank);

// Writes the CUDA device of the world; -1 on the host backend.
mwResult_t mwWorldDevice(mwWorld_t world, int *device);

// Writes the world's name and a NUL into `size` bytes; MW_WORLD_NAME_BYTES are always enough.
mwResult_t mwWorldName(mwWorld_t world, char *name, size_t size);

// Writes the world's epoch: which of the memberships that had this name it is.
mwResult_t mwWorldEpoch(mwWorld_t world, uint64_t *epoch);

// Writes what the world is at the moment.
mwResult_t mwWorldGetState(mwWorld_t world, mwWorldState_t *state);

// Writes what broke the world, mwSuccess while nothing did. mwGetLastError(world) has the sentence to it.
mwResult_t mwWorldGetAsyncError(mwWorld_t world, mwResult_t *asyncError);

// Writes the ranks that failed, in ascending order, as many as fit: `*count` is the room in `ranks` before
// and the number of failed ranks afterwards, which may be greater. With a room of 0, `ranks` may be NULL.
// All surviving members get the same.
mwResult_t mwWorldGetFailedRanks(mwWorld_t world, int *ranks, int *count);

// Writes the counters of the world. `stats->size` says how much there is room for, so set it before the
// call; fields that only a newer library knows are left alone.
mwResult_t mwWorldGetStats(mwWorld_t world, mwWorldStats_t *stats);

// Makes an operator for one world and one data type: every rank's input is multiplied by that rank's
// `scalar`, one element of the type, and the products are summed. `residence` says where the scalar lies and
// when it is read. Each rank makes its own; the numbers need not agree. Freed with mwRedOpDestroy or with
// the world.
mwResult_t mwRedOpCreatePreMulSum(mwRedOp_t *op,
                                  const void *scalar,
                                  mwDataType_t datatype,
                                  mwScalarResidence_t residence,
                                  mwWorld_t world);

// Destroys an operator of a world. Operations that were posted with it are not affected.
mwResult_t mwRedOpDestroy(mwRedOp_t op, mwWorld_t world);

// Sends `count` elements to the rank `peer`, which has to call mwRecv with the same count and type. Messages
// between two ranks arrive in the order in which they were sent. Outside a group this returns when the
// buffer may be used again, which may be before the peer has received: two ranks that both send first and
// then receive need a group.
mwResult_t mwSend(const void *sendbuff, size_t count, mwDataType_t datatype, int peer, mwWorld_t world, mwStream_t stream);

// Receives `count` elements from the rank `peer`.
mwResult_t mwRecv(void *recvbuff, size_t count, mwDataType_t datatype, int peer, mwWorld_t world, mwStream_t stream);

// Copies the `count` elements at `sendbuff` of the rank `root` to `recvbuff` of every rank. `sendbuff` is
// used on the root only, where both may be the same.
mwResult_t mwBroadcast(const void *sendbuff,
                       void *recvbuff,
                       size_t count,
                       mwDataType_t datatype,
                       int root,
                       mwWorld_t world,
                       mwStream_t stream);

// Reduces `count` elements of every rank into `recvbuff` of the rank `root`. `recvbuff` is used on the root
// only, where both may be the same.
mwResult_t mwReduce(const void *sendbuff,
                    void *recvbuff,
                    size_t count,
                    mwDataType_t datatype,
                    mwRedOp_t op,
                    int root,
                    mwWorld_t world,
                    mwStream_t stream);

// Reduces `count` elements of every rank into `recvbuff` of every rank; the bits are the same on all. Both
// buffers may be the same.
mwResult_t mwAllReduce(const void *sendbuff,
                       void *recvbuff,
                       size_t count,
                       mwDataType_t datatype,
                       mwRedOp_t op,
                       mwWorld_t world,
                       mwStream_t stream);

// Puts the `sendcount` elements of rank i at `recvbuff + i * sendcount` of every rank; `recvbuff` holds
// nranks * sendcount elements. In place when `sendbuff` is this rank's part of `recvbuff`.
mwResult_t mwAllGather(const void *sendbuff,
                       void *recvbuff,
                       size_t sendcount,
                       mwDataType_t datatype,
                       mwWorld_t world,
                       mwStream_t stream);

// Reduces nranks * recvcount elements of every rank and leaves the part that begins at i * recvcount,
// `recvcount` elements, in `recvbuff` of rank i. In place when `recvbuff` is this rank's part of `sendbuff`.
mwResult_t mwReduceScatter(const void *sendbuff,
                           void *recvbuff,
                           size_t recvcount,
                           mwDataType_t datatype,
                           mwRedOp_t op,
                           mwWorld_t world,
                           mwStream_t stream);

// Sends the `count` elements at `sendbuff + i * count` to rank i and puts those that come from rank i at
// `recvbuff + i * count`; both buffers hold nranks * count elements and do not overlap.
mwResult_t mwAllToAll(const void *sendbuff,
                      void *recvbuff,
                      size_t count,
                      mwDataType_t datatype,
                      mwWorld_t world,
                      mwStream_t stream);

// Puts the `count` elements of rank i at `recvbuff + i * count` of the rank `root`. `recvbuff`, nranks *
// count elements, is used on the root only; in place there when `sendbuff` is the root's part of it.
mwResult_t mwGather(const void *sendbuff,
                    void *recvbuff,
                    size_t count,
                    mwDataType_t datatype,
                    int root,
                    mwWorld_t world,
                    mwStream_t stream);

// Puts the `count` elements at `sendbuff + i * count` of the rank `root` into `recvbuff` of rank i.
// `sendbuff`, nranks * count elements, is used on the root only; in place there when `recvbuff` is the
// root's part of it.
mwResult_t mwScatter(const void *sendbuff,
                     void *recvbuff,
                     size_t count,
                     mwDataType_t datatype,
                     int root,
                     mwWorld_t world,
                     mwStream_t stream);

// Returns when every rank has called it.
mwResult_t mwBarrier(mwWorld_t world, mwStream_t stream);

// Opens a group: operations that this thread posts from now on are checked at once, but started by the
// mwGroupEnd (or mwGroupSubmit) that belongs to it, and then progress together. One that is refused spoils the
// group: its end returns the first such error and starts nothing. Groups may be nested; only the outermost one
// counts. A group may span worlds.
mwResult_t mwGroupStart(void);

// Closes a group. The outermost one starts everything posted in it and, on the host backend, returns when
// all of it is done: mwSuccess, or the first error; operations of other worlds than the failed one complete.
// If an operation of the group was refused when it was posted, that error is returned and nothing is
// started. An empty group does nothing.
mwResult_t mwGroupEnd(void);

// Closes a group as mwGroupEnd does, but does not wait: gives a request for everything posted in it. Only
// for the outermost group. The buffers must stay valid, and those that are written untouched, until the
// request is done. On an error the request is NULL and nothing is started. That closes the group, too, unless
// the error is that `request` is wrong or the group an inner one.
mwResult_t mwGroupSubmit(mwRequest_t *request);

// Asks whether a request is done, without waiting: `*done` becomes 1 or 0. Returns mwSuccess while it is
// not, and once it is, what its operations came to: mwSuccess or the first error.
mwResult_t mwRequestTest(mwRequest_t request, int *done);

// Waits for a request: mwInProgress when it is not done within `timeoutMs`, else what its operations came
// to, as often as it is asked. 0 does not wait at all; a negative time waits until the request is done,
// which the deadlines of its operations bound.
mwResult_t mwRequestWait(mwRequest_t request, int timeoutMs);

// Waits until one of `count` requests is done, writes its index and returns what its operations came to.
// mwInProgress and index -1 when the time is up; `timeoutMs` as for mwRequestWait. Entries that are NULL are
// skipped; if all are, that is an error. The done one stays a valid request: free it and set its entry to
// NULL.
mwResult_t mwRequestWaitAny(int count, const mwRequest_t *requests, int *index, int timeoutMs);

// Frees a request. One that is not done goes on to its end unwatched: its buffers must stay valid until
// then, and only a later operation of the same world or the end of the world tells when that is.
mwResult_t mwRequestFree(mwRequest_t request);

// Allocates memory from which messages go the shortest way. Ranks on one machine map each
// other's: a message of 1 KiB or more is then copied, or reduced, once, straight from the sender's buffer,
// without a system call; its mwSend returns when it has been received. Everything works on it as on any
// other memory, over every transport, and any part of it can be a buffer.
//
// `ptr`: where the address is written, which begins a page. `size`: bytes; 0 counts as 1. The memory is
// zeroed and belongs to the caller, who gives it back with mwMemFree. It belongs to the process, not to a
// world, and may be allocated before there is one. Each takes whole pages and a file descriptor, so
// allocate a few large pieces rather than many small ones; without descriptors left it is memory like any
// other, which is logged once. Peers that receive from it can read all of it. A fork of the
// process does not have it: to touch it there is a segmentation fault.
//
// Where MW_BACKEND is nccl this is ncclMemAlloc, on the calling thread's current device.
//
// mwInvalidArgument: `ptr` is NULL, or `size` more than an address space. mwSystemError: there is no memory.
// mwInvalidUsage: this process was forked from one that uses the library. On an error `*ptr` is NULL, if it
// can be. May be called by any thread at any time.
mwResult_t mwMemAlloc(void **ptr, size_t size);

// Gives memory from mwMemAlloc back; `ptr` is what that wrote, and NULL does nothing. No operation that is
// not over may use it. Worlds may live, and those that used it need not end before: an operation of a world
// that was aborted, or that has broken, is over when its call or its request has returned, whatever its
// peers are doing.
//
// mwInvalidArgument: `ptr` is not the beginning of memory from mwMemAlloc, or was freed before.
// mwInvalidUsage: this process is a fork of the one that it belongs to. May be called by any thread at any
// time.
mwResult_t mwMemFree(void *ptr);

// A descriptor that is readable exactly while mwEventNext would find an event: for poll, epoll and select.
// There is one per process. It belongs to the library; do not read from it and do not close it.
mwResult_t mwEventFd(int *fd);

// Takes the oldest event of this process, of whichever world. Waits up to `timeoutMs` for one (0: not at
// all, negative: until there is one); mwInProgress when none came. Each event is taken once, by one thread.
// Worlds with a callback have their events here, too. The library keeps 4096 events; if nobody takes them
// the oldest are dropped.
mwResult_t mwEventNext(mwEvent_t *event, int timeoutMs);

// Sets what is called with each event of a world from now on; NULL for nothing. When this, mwWorldDestroy or
// mwWorldAbort returns, the previous callback is not running and will not be called again, so `user` may be
// freed; the exception is a call from within that callback, which does not wait for itself. If the callback
// does not return within 10 seconds this is mwTimeout: it will not be called again, but is still running.
mwResult_t mwWorldSetCallback(mwWorld_t world, mwEventCallback_t callback, void *user);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MULTIWORLD_H */
