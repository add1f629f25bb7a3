/* Every operation with every type, in and out of place, on worlds of one to four threads of this process.
 *
 * Values are small integers that even 8-bit floats hold exactly, at every step of a reduction, so results
 * compare bit for bit. Guard bytes show writes beyond a buffer; inputs must come out unchanged.
 */
#define _DEFAULT_SOURCE
#include "check.h"

enum { MAX_COUNT = 100000, MAX_NRANKS = 4, GUARD = 64 };

typedef struct {
  mwDataType_t type;
  const char* name;
  int size;
  int exponent_bits; /* 0: an integer type */
  int mantissa_bits;
} Type;

static const Type types[] = {
    {mwInt8, "int8", 1, 0, 0},          {mwUint8, "uint8", 1, 0, 0},
    {mwInt32, "int32", 4, 0, 0},        {mwUint32, "uint32", 4, 0, 0},
    {mwInt64, "int64", 8, 0, 0},        {mwUint64, "uint64", 8, 0, 0},
    {mwFloat16, "float16", 2, 5, 10},   {mwFloat32, "float32", 4, 8, 23},
    {mwFloat64, "float64", 8, 11, 52},  {mwBfloat16, "bfloat16", 2, 8, 7},
    {mwFloat8e4m3, "float8e4m3", 1, 4, 3}, {mwFloat8e5m2, "float8e5m2", 1, 5, 2},
};
enum { TYPES = sizeof types / sizeof types[0] };

/* What all threads of one round share. */
static const Type* type;
static size_t count;
static int in_place;

/* A small integer as a value of `type`, bit by bit. */
static uint64_t encode(int value) {
  int exponent = 0;
  if (type->exponent_bits == 0 || value == 0) return (uint64_t)value;
  while (value >> (exponent + 1) != 0) ++exponent;
  uint64_t bias = ((uint64_t)1 << (type->exponent_bits - 1)) - 1;
  uint64_t fraction = ((uint64_t)(value - (1 << exponent)) << type->mantissa_bits) >> exponent;
  return ((bias + (uint64_t)exponent) << type->mantissa_bits) | fraction;
}

static void put(unsigned char* buffer, size_t index, int value) {
  uint64_t bits = encode(value);
  memcpy(buffer + index * (size_t)type->size, &bits, (size_t)type->size); /* little-endian */
}

static int holds(const unsigned char* buffer, size_t index, int value) {
  uint64_t bits = encode(value);
  return memcmp(buffer + index * (size_t)type->size, &bits, (size_t)type->size) == 0;
}

/* What rank `rank` contributes at index i: 0, 1 or 2, so that four of them add up to 8 at most. */
static int given(int rank, size_t i) { return (int)((i + (size_t)rank) % 3); }

static unsigned char* new_buffer(size_t elements) {
  size_t bytes = elements * (size_t)type->size;
  unsigned char* buffer = malloc(bytes + GUARD);
  NEED(buffer != NULL);
  memset(buffer, 0x5a, bytes + GUARD);
  return buffer;
}

static void free_buffer(unsigned char* buffer, size_t elements, const char* operation) {
  int intact = 1;
  unsigned char* end = buffer + elements * (size_t)type->size;
  for (int i = 0; i < GUARD; ++i) intact = intact && end[i] == 0x5a;
  check_that(intact, __FILE__, __LINE__, operation, "wrote beyond the end of a buffer");
  free(buffer);
}

static void verdict(int right, const char* operation, int nranks, int rank) {
  char what[128];
  snprintf(what, sizeof what, "%s of %d x %s, %d ranks, %s, rank %d", operation, (int)count, type->name,
           nranks, in_place ? "in place" : "out of place", rank);
  check_that(right, __FILE__, __LINE__, what, "wrong data");
}

static int combine(mwRedOp_t op, int a, int b) {
  switch (op) {
    case mwProd: return a * b;
    case mwMax: return a > b ? a : b;
    case mwMin: return a < b ? a : b;
    default: return a + b;
  }
}

/* Inputs of a reduction: a product takes 1 and 2; an average the same from everybody, so that it is exact. */
static int reduced_input(mwRedOp_t op, int rank, size_t i) {
  if (op == mwProd) return 1 + given(rank, i) % 2;
  if (op == mwAvg) return given(0, i);
  return given(rank, i);
}

static int reduced(mwRedOp_t op, int nranks, size_t i) {
  int result = reduced_input(op, 0, i);
  if (op == mwAvg) return result;
  for (int r = 1; r < nranks; ++r) result = combine(op, result, reduced_input(op, r, i));
  return result;
}

static void broadcast(mwWorld_t world, int nranks, int rank, int root) {
  unsigned char* send = new_buffer(count);
  unsigned char* recv = in_place ? send : new_buffer(count);
  int right = 1;
  if (rank == root) {
    for (size_t i = 0; i < count; ++i) put(send, i, given(root, i));
  }
  CHECK_OK(mwBroadcast(send, recv, count, type->type, root, world, NULL));
  for (size_t i = 0; i < count; ++i) right = right && holds(recv, i, given(root, i));
  verdict(right, "mwBroadcast", nranks, rank);
  if (!in_place) free_buffer(recv, count, "mwBroadcast");
  free_buffer(send, count, "mwBroadcast");
}

/* Reduce with a root, AllReduce with root -1. */
static void reduce(mwWorld_t world, int nranks, int rank, mwRedOp_t op, int root) {
  const char* name = root < 0 ? "mwAllReduce" : "mwReduce";
  unsigned char* send = new_buffer(count);
  unsigned char* recv = in_place ? send : new_buffer(count);
  int right = 1;
  for (size_t i = 0; i < count; ++i) put(send, i, reduced_input(op, rank, i));
  if (root < 0) CHECK_OK(mwAllReduce(send, recv, count, type->type, op, world, NULL));
  else CHECK_OK(mwReduce(send, rank == root ? recv : NULL, count, type->type, op, root, world, NULL));
  for (size_t i = 0; i < count; ++i) {
    if (root < 0 || rank == root) right = right && holds(recv, i, reduced(op, nranks, i));
    if (!in_place) right = right && holds(send, i, reduced_input(op, rank, i));
  }
  verdict(right, name, nranks, rank);
  if (!in_place) free_buffer(recv, count, name);
  free_buffer(send, count, name);
}

static void reduce_scatter(mwWorld_t world, int nranks, int rank, mwRedOp_t op) {
  size_t total = count * (size_t)nranks;
  unsigned char* send = new_buffer(total);
  unsigned char* recv = in_place ? send + (size_t)rank * count * (size_t)type->size : new_buffer(count);
  int right = 1;
  for (size_t i = 0; i < total; ++i) put(send, i, reduced_input(op, rank, i));
  CHECK_OK(mwReduceScatter(send, recv, count, type->type, op, world, NULL));
  for (size_t i = 0; i < count; ++i) {
    right = right && holds(recv, i, reduced(op, nranks, i + (size_t)rank * count));
  }
  verdict(right, "mwReduceScatter", nranks, rank);
  if (!in_place) free_buffer(recv, count, "mwReduceScatter");
  free_buffer(send, total, "mwReduceScatter");
}

/* Gather with a root, AllGather with root -1. */
static void gather(mwWorld_t world, int nranks, int rank, int root) {
  const char* name = root < 0 ? "mwAllGather" : "mwGather";
  size_t total = count * (size_t)nranks;
  unsigned char* recv = new_buffer(total);
  unsigned char* send = in_place ? recv + (size_t)rank * count * (size_t)type->size : new_buffer(count);
  int right = 1;
  for (size_t i = 0; i < count; ++i) put(send, i, given(rank, i));
  if (root < 0) CHECK_OK(mwAllGather(send, recv, count, type->type, world, NULL));
  else CHECK_OK(mwGather(send, rank == root ? recv : NULL, count, type->type, root, world, NULL));
  for (size_t i = 0; i < total && (root < 0 || rank == root); ++i) {
    right = right && holds(recv, i, given((int)(i / count), i % count));
  }
  verdict(right, name, nranks, rank);
  if (!in_place) free_buffer(send, count, name);
  free_buffer(recv, total, name);
}

static void scatter(mwWorld_t world, int nranks, int rank, int root) {
  size_t total = count * (size_t)nranks;
  unsigned char* send = new_buffer(total);
  unsigned char* recv = in_place ? send + (size_t)rank * count * (size_t)type->size : new_buffer(count);
  int right = 1;
  if (rank == root) {
    for (size_t i = 0; i < total; ++i) put(send, i, given((int)(i / count), i % count));
  }
  CHECK_OK(mwScatter(rank == root ? send : NULL, recv, count, type->type, root, world, NULL));
  for (size_t i = 0; i < count; ++i) right = right && holds(recv, i, given(rank, i));
  verdict(right, "mwScatter", nranks, rank);
  if (!in_place) free_buffer(recv, count, "mwScatter");
  free_buffer(send, total, "mwScatter");
}

/* Block b of rank r's input is `given(r + b)`. There is no in-place form. */
static void all_to_all(mwWorld_t world, int nranks, int rank) {
  size_t total = count * (size_t)nranks;
  unsigned char* send = new_buffer(total);
  unsigned char* recv = new_buffer(total);
  int right = 1;
  for (size_t i = 0; i < total; ++i) put(send, i, given(rank + (int)(i / count), i % count));
  CHECK_OK(mwAllToAll(send, recv, count, type->type, world, NULL));
  for (size_t i = 0; i < total; ++i) {
    right = right && holds(recv, i, given((int)(i / count) + rank, i % count));
  }
  verdict(right, "mwAllToAll", nranks, rank);
  free_buffer(recv, total, "mwAllToAll");
  free_buffer(send, total, "mwAllToAll");
}

/* Everybody sends to the next rank and receives from the one before, in one group; alone, to itself. */
static void ring(mwWorld_t world, int nranks, int rank) {
  int before = (rank + nranks - 1) % nranks;
  unsigned char* send = new_buffer(count);
  unsigned char* recv = new_buffer(count);
  int right = 1;
  for (size_t i = 0; i < count; ++i) put(send, i, given(rank, i));
  CHECK_OK(mwGroupStart());
  CHECK_OK(mwSend(send, count, type->type, (rank + 1) % nranks, world, NULL));
  CHECK_OK(mwRecv(recv, count, type->type, before, world, NULL));
  CHECK_OK(mwGroupEnd());
  for (size_t i = 0; i < count; ++i) right = right && holds(recv, i, given(before, i));
  verdict(right, "mwSend and mwRecv", nranks, rank);
  free_buffer(recv, count, "mwRecv");
  free_buffer(send, count, "mwSend");
}

/* The sum of everybody's input times two; inputs are 0 and 1. */
static void pre_mul_sum(mwWorld_t world, int nranks, int rank) {
  uint64_t two = encode(2);
  unsigned char* data = new_buffer(count);
  mwRedOp_t op;
  int right = 1;
  for (size_t i = 0; i < count; ++i) put(data, i, given(rank, i) % 2);
  CHECK_OK(mwRedOpCreatePreMulSum(&op, &two, type->type, mwScalarHostImmediate, world));
  CHECK_OK(mwAllReduce(data, data, count, type->type, op, world, NULL));
  CHECK_OK(mwRedOpDestroy(op, world));
  for (size_t i = 0; i < count; ++i) {
    int sum = 0;
    for (int r = 0; r < nranks; ++r) sum += 2 * (given(r, i) % 2);
    right = right && holds(data, i, sum);
  }
  verdict(right, "mwAllReduce with a pre-multiplied sum", nranks, rank);
  free_buffer(data, count, "mwAllReduce");
}

static void every_operation(mwWorld_t world, int nranks, int rank) {
  static const mwRedOp_t ops[] = {mwSum, mwProd, mwMax, mwMin, mwAvg};
  for (int root = 0; root < nranks; ++root) {
    broadcast(world, nranks, rank, root);
    gather(world, nranks, rank, root);
    scatter(world, nranks, rank, root);
    reduce(world, nranks, rank, mwSum, root);
  }
  gather(world, nranks, rank, -1);
  for (size_t i = 0; i < sizeof ops / sizeof ops[0]; ++i) {
    reduce(world, nranks, rank, ops[i], -1);
    reduce(world, nranks, rank, ops[i], nranks - 1);
    reduce_scatter(world, nranks, rank, ops[i]);
  }
  all_to_all(world, nranks, rank);
  ring(world, nranks, rank);
  pre_mul_sum(world, nranks, rank);
  CHECK_OK(mwBarrier(world, NULL));
}

int main(void) {
  static const size_t counts[] = {0, 1, 7, 1000, MAX_COUNT};
  const size_t rounds = check_quick() ? 3 : 4;
  for (int nranks = 1; nranks <= MAX_NRANKS; ++nranks) {
    mwWorld_t worlds[MAX_NRANKS];
    NEED(mwWorldInitAll(worlds, nranks, NULL) == mwSuccess);
    for (int t = 0; t < TYPES; ++t) {
      type = &types[t];
      for (size_t c = 0; c < rounds + (type->type == mwFloat32 && !check_quick()); ++c) {
        count = counts[c];
        for (in_place = 0; in_place <= 1; ++in_place) check_ranks(worlds, nranks, every_operation);
      }
    }
    check_ranks(worlds, nranks, check_destroy);
  }
  return check_report("operations");
}
