/* Needs no header of CUDA: the double's own controls, from a program that is linked to it as to libcudart.
 * Its argument is the number of the call of cudaLaunchHostFunc that breaks the device, by the environment. */
#define MW_DOUBLE_CUDA_DECLARE
#include "mwdouble_cuda.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPECT(call, expected)                                                                  \
  do {                                                                                          \
    long got = (long)(call);                                                                    \
    if (got != (long)(expected)) {                                                              \
      fprintf(stderr, "line %d: %s gives %ld, not %ld\n", __LINE__, #call, got, (long)(expected)); \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)

static void add(void* counter) { ++*(int*)counter; }

int main(int argc, char** argv) {
  int nth = argc > 1 ? atoi(argv[1]) : 0, count = 0, ran = 0, i;
  cudaStream_t stream;

  EXPECT(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT(count, 4);
  EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);

  EXPECT(mwDoubleCudaPark(stream), 0);
  EXPECT(cudaLaunchHostFunc(stream, add, &ran), cudaSuccess);
  EXPECT(cudaStreamQuery(stream), cudaErrorNotReady);
  EXPECT(ran, 0);
  EXPECT(mwDoubleCudaUnpark(stream), 0);
  EXPECT(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT(ran, 1);
  EXPECT(mwDoubleCudaCalls("cudaLaunchHostFunc"), 1);

  EXPECT(mwDoubleCudaPoison(0, 719), 0);
  EXPECT(cudaStreamSynchronize(stream), 719);
  EXPECT(mwDoubleCudaHeal(0), 0);
  EXPECT(cudaStreamSynchronize(stream), cudaSuccess);

  for (i = 2; i < nth; i++) EXPECT(cudaLaunchHostFunc(stream, add, &ran), cudaSuccess);
  EXPECT(cudaLaunchHostFunc(stream, add, &ran), cudaErrorIllegalAddress);
  EXPECT(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT(cudaSetDevice(1), cudaSuccess);
  EXPECT(cudaDeviceSynchronize(), cudaSuccess);
  puts("ok");
  return 0;
}
