/* DRAFT of the API; becomes the cbindgen output with the same names, values and argument order. */
#ifndef MULTIWORLD_H
#define MULTIWORLD_H
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#define MW_MAJOR 0
#define MW_MINOR 1
#define MW_PATCH 0
#define MW_VERSION_CODE 100            /* major * 10000 + minor * 100 + patch */
#define MW_UNIQUE_ID_BYTES 128
#define MW_WORLD_NAME_BYTES 64         /* longest world name + NUL */
#define MW_REASON_BYTES 256
#define MW_CONFIG_UNDEF_INT INT_MIN
#define MW_SPLIT_NOCOLOR (-1)

typedef struct mwWorld* mwWorld_t;
typedef struct mwRequest* mwRequest_t;
typedef struct CUstream_st* mwStream_t;   /* NULL on the host backend */
typedef struct { char internal[MW_UNIQUE_ID_BYTES]; } mwUniqueId;

typedef enum { mwSuccess = 0, mwUnhandledCudaError = 1, mwSystemError = 2, mwInternalError = 3, mwInvalidArgument = 4,
  mwInvalidUsage = 5, mwRemoteError = 6, mwInProgress = 7, mwTimeout = 8, mwRevoked = 100, mwAborted = 101,
  mwUnauthorized = 102 } mwResult_t;
typedef enum { mwInt8 = 0, mwUint8 = 1, mwInt32 = 2, mwUint32 = 3, mwInt64 = 4, mwUint64 = 5, mwFloat16 = 6, mwFloat32 = 7,
  mwFloat64 = 8, mwBfloat16 = 9, mwFloat8e4m3 = 10, mwFloat8e5m2 = 11, mwNumTypes = 12 } mwDataType_t;
/* aliases as in nccl.h: */
#define mwChar mwInt8
#define mwInt mwInt32
#define mwHalf mwFloat16
#define mwFloat mwFloat32
#define mwDouble mwFloat64
typedef enum { mwSum = 0, mwProd = 1, mwMax = 2, mwMin = 3, mwAvg = 4, mwNumOps = 5, mwMaxRedOp = 0x7fffffff } mwRedOp_t;
typedef enum { mwScalarDevice = 0, mwScalarHostImmediate = 1 } mwScalarResidence_t;
typedef enum { mwWorldActive = 0, mwWorldBroken = 1, mwWorldRevoked = 2, mwWorldAborted = 3, mwWorldFinalized = 4 } mwWorldState_t;
typedef enum { mwEventRankFailed = 1,   /* a member died, hung or was cut off; one event per world and rank */
  mwEventWorldBroken = 2,               /* broken without a dead member: deadline passed, mismatched calls */
  mwEventWorldRevoked = 3, mwEventRankLeft = 4, mwEventStoreLost = 5 } mwEventKind_t;

typedef struct {                        /* every int: MW_CONFIG_UNDEF_INT, every pointer: NULL = environment, then default */
  size_t size; unsigned int magic; unsigned int version;
  const char* store;                    /* MW_STORE: "tcp://host:port" */
  const char* transport;                /* MW_TRANSPORT: "auto", "shm", "tcp" */
  const char* ifname;                   /* MW_IFNAME: as NCCL_SOCKET_IFNAME */
  const char* secret;                   /* MW_SECRET, MW_SECRET_FILE */
  int timeoutMs;                        /* MW_TIMEOUT_MS: deadline of every operation, default 600000 */
  int joinTimeoutMs;                    /* MW_JOIN_TIMEOUT_MS: deadline of joining, default 60000 */
  int heartbeatIntervalMs;              /* MW_HEARTBEAT_INTERVAL_MS, default 200 */
  int heartbeatTimeoutMs;               /* MW_HEARTBEAT_TIMEOUT_MS, default 1000 */
  int device;                           /* CUDA device of the nccl backend; -1 on the host backend */
} mwConfig_t;
#define MW_CONFIG_MAGIC 0x6d77636fu
#define MW_CONFIG_INITIALIZER { sizeof(mwConfig_t), MW_CONFIG_MAGIC, MW_VERSION_CODE, NULL, NULL, NULL, NULL, \
  MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT, MW_CONFIG_UNDEF_INT }

typedef struct {
  mwEventKind_t kind; mwResult_t result;
  mwWorld_t world;                      /* NULL for process-wide events; may be stale by now */
  char name[MW_WORLD_NAME_BYTES];
  uint64_t epoch;
  int rank;                             /* the rank that failed or left, else -1 */
  uint64_t timestampNs;                 /* CLOCK_MONOTONIC */
  char reason[MW_REASON_BYTES];
} mwEvent_t;
typedef void (*mwEventCallback_t)(const mwEvent_t* event, void* user);

typedef struct { size_t size; uint64_t operations, bytesSent, bytesReceived; int shmPeers, tcpPeers; uint64_t memoryBytes; } mwWorldStats_t;
/* size is set by the caller to sizeof(mwWorldStats_t) */

#ifdef __cplusplus
extern "C" {
#endif
mwResult_t mwGetVersion(int* version);
const char* mwGetErrorString(mwResult_t result);
const char* mwGetLastError(mwWorld_t world);            /* NULL: this thread's last error. Valid until this thread's next call. */
mwResult_t mwGetUniqueId(mwUniqueId* id);

mwResult_t mwWorldInit(mwWorld_t* world, const char* name, int nranks, int rank, const mwConfig_t* config);
mwResult_t mwWorldInitRank(mwWorld_t* world, int nranks, mwUniqueId id, int rank, const mwConfig_t* config);
mwResult_t mwWorldInitAll(mwWorld_t* worlds, int nranks, const mwConfig_t* config);
mwResult_t mwWorldSplit(mwWorld_t world, int color, int key, mwWorld_t* newworld, const mwConfig_t* config);
mwResult_t mwWorldRevoke(mwWorld_t world);
mwResult_t mwWorldAbort(mwWorld_t world);               /* the handle is gone afterwards */
mwResult_t mwWorldFinalize(mwWorld_t world);            /* finishes what was accepted, tells peers; destroy still needed */
mwResult_t mwWorldDestroy(mwWorld_t world);             /* finalize if not done, then free */

mwResult_t mwWorldCount(mwWorld_t world, int* count);
mwResult_t mwWorldUserRank(mwWorld_t world, int* rank);
mwResult_t mwWorldDevice(mwWorld_t world, int* device);
mwResult_t mwWorldName(mwWorld_t world, char* name, size_t size);
mwResult_t mwWorldEpoch(mwWorld_t world, uint64_t* epoch);
mwResult_t mwWorldGetState(mwWorld_t world, mwWorldState_t* state);
mwResult_t mwWorldGetAsyncError(mwWorld_t world, mwResult_t* asyncError);
mwResult_t mwWorldGetFailedRanks(mwWorld_t world, int* ranks, int* count);  /* count: in capacity, out number of failed ranks */
mwResult_t mwWorldGetStats(mwWorld_t world, mwWorldStats_t* stats);

mwResult_t mwSend(const void* sendbuff, size_t count, mwDataType_t datatype, int peer, mwWorld_t world, mwStream_t stream);
mwResult_t mwRecv(void* recvbuff, size_t count, mwDataType_t datatype, int peer, mwWorld_t world, mwStream_t stream);
mwResult_t mwBroadcast(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, int root, mwWorld_t world, mwStream_t stream);
mwResult_t mwReduce(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, mwRedOp_t op, int root, mwWorld_t world, mwStream_t stream);
mwResult_t mwAllReduce(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, mwRedOp_t op, mwWorld_t world, mwStream_t stream);
mwResult_t mwAllGather(const void* sendbuff, void* recvbuff, size_t sendcount, mwDataType_t datatype, mwWorld_t world, mwStream_t stream);
mwResult_t mwReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount, mwDataType_t datatype, mwRedOp_t op, mwWorld_t world, mwStream_t stream);
mwResult_t mwAllToAll(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, mwWorld_t world, mwStream_t stream); /* count per peer */
mwResult_t mwGather(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, int root, mwWorld_t world, mwStream_t stream);
mwResult_t mwScatter(const void* sendbuff, void* recvbuff, size_t count, mwDataType_t datatype, int root, mwWorld_t world, mwStream_t stream);
mwResult_t mwBarrier(mwWorld_t world, mwStream_t stream);
mwResult_t mwRedOpCreatePreMulSum(mwRedOp_t* op, const void* scalar, mwDataType_t datatype, mwScalarResidence_t residence, mwWorld_t world);
mwResult_t mwRedOpDestroy(mwRedOp_t op, mwWorld_t world);

mwResult_t mwGroupStart(void);
mwResult_t mwGroupEnd(void);
mwResult_t mwGroupSubmit(mwRequest_t* request);
mwResult_t mwRequestTest(mwRequest_t request, int* done);
mwResult_t mwRequestWait(mwRequest_t request, int timeoutMs);            /* mwInProgress when the time is up; -1: until its own deadline */
mwResult_t mwRequestWaitAny(int count, const mwRequest_t* requests, int* index, int timeoutMs);  /* NULL entries are skipped */
mwResult_t mwRequestFree(mwRequest_t request);

mwResult_t mwEventFd(int* fd);
mwResult_t mwEventNext(mwEvent_t* event, int timeoutMs);                 /* mwInProgress when none came in time */
mwResult_t mwWorldSetCallback(mwWorld_t world, mwEventCallback_t callback, void* user);
#ifdef __cplusplus
}
#endif
#endif
