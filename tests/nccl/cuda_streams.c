/* One thread drives several devices: operations are enqueued on streams and done behind what is before them. */
#include "double.h"

enum { DEVICES = 4 };

/* Keeps a stream busy until it is told. */
static void gate(void *data) {
  volatile int *is_open = data;
  while (!*is_open) nap();
}

int main(void) {
  start();
  ncclComm_t comms[DEVICES];
  cudaStream_t streams[DEVICES];
  int *in[DEVICES], *out[DEVICES];
  OK(ncclCommInitAll(comms, DEVICES, NULL));
  for (int d = 0; d < DEVICES; d++) {
    int device = -1;
    CHECK(cudaSetDevice(d) == 0 && cudaStreamCreate(&streams[d]) == 0);
    CHECK(cudaMalloc((void **)&in[d], sizeof(int)) == 0 && cudaMalloc((void **)&out[d], sizeof(int)) == 0);
    OK(ncclCommCuDevice(comms[d], &device));
    CHECK(device == d);
    *in[d] = d + 1;
    *out[d] = 0;
  }
  /* One after the other, without a group: possible because none waits for the others. */
  for (int d = 0; d < DEVICES; d++) {
    CHECK(cudaSetDevice(d) == 0);
    OK(ncclAllReduce(in[d], out[d], 1, ncclInt32, ncclSum, comms[d], streams[d]));
  }
  for (int d = 0; d < DEVICES; d++) CHECK(cudaStreamSynchronize(streams[d]) == 0 && *out[d] == 10);
  /* Nothing is done before what its stream was given before. */
  volatile int is_open = 0;
  for (int d = 0; d < DEVICES; d++) *out[d] = 0;
  CHECK(cudaLaunchHostFunc(streams[1], gate, (void *)&is_open) == 0);
  OK(ncclGroupStart());
  for (int d = 0; d < DEVICES; d++) {
    OK(ncclSend(in[d], 1, ncclInt32, (d + 1) % DEVICES, comms[d], streams[d]));
    OK(ncclRecv(out[d], 1, ncclInt32, (d + DEVICES - 1) % DEVICES, comms[d], streams[d]));
  }
  OK(ncclGroupEnd());
  for (int i = 0; i < 50; i++) nap();
  CHECK(*out[1] == 0 && *out[2] == 0 && (int)cudaStreamQuery(streams[2]) == 600);
  is_open = 1;
  for (int d = 0; d < DEVICES; d++) {
    CHECK(cudaStreamSynchronize(streams[d]) == 0);
    CHECK(*out[d] == (d + DEVICES - 1) % DEVICES + 1);
  }
  /* One that waits for ever leaves its stream when its communicator ends, and the others are told. */
  CHECK(cudaSetDevice(0) == 0);
  OK(ncclRecv(out[0], 1, ncclInt32, 1, comms[0], streams[0]));
  for (int i = 0; i < 20; i++) nap();
  CHECK((int)cudaStreamQuery(streams[0]) == 600);
  OK(ncclCommAbort(comms[1]));
  CHECK(freed(streams[0]) == 0);
  CHECK(broken(comms[0]) == ncclRemoteError);
  for (int d = 0; d < DEVICES; d++) {
    if (d != 1) OK(ncclCommAbort(comms[d]));
  }
  lawful();
  puts("fine");
  return 0;
}
