/* For programs that bring a CUDA runtime, and ask the double of NCCL afterwards whether its rules were kept. */
#ifndef DOUBLE_H
#define DOUBLE_H

#include "ranks.h"

#include <dlfcn.h>

#ifndef WITH_NCCL_H
int cudaSetDevice(int device);
int cudaStreamCreate(cudaStream_t *stream);
int cudaStreamDestroy(cudaStream_t stream);
int cudaStreamSynchronize(cudaStream_t stream);
int cudaStreamQuery(cudaStream_t stream);
int cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void *), void *data);
int cudaMalloc(void **address, size_t bytes);
int cudaFree(void *address);
#endif

/* A function of the double, which the drop-in has opened for itself. */
static inline void find_double(const char *name, void *function) {
  void *library = dlopen(getenv("MW_NCCL_LIB"), RTLD_NOW | RTLD_NOLOAD);
  void *address = library != NULL ? dlsym(library, name) : NULL;
  CHECK(address != NULL);
  memcpy(function, &address, sizeof address);
}

static inline unsigned long long calls(const char *name) {
  uint64_t (*count)(const char *);
  find_double("mwDoubleNcclCalls", &count);
  return count(name);
}

static inline void set_script(const char *text) {
  int (*set)(const char *);
  find_double("mwDoubleNcclScript", &set);
  CHECK(set(text) == 0);
}

static inline void lawful(void) {
  char text[4096] = "";
  int (*violations)(char *, size_t);
  find_double("mwDoubleNcclViolations", &violations);
  if (violations(text, sizeof text) != 0) {
    fprintf(stderr, "rank %d: violations of NCCL's rules: %s\n", rank, text);
    exit(1);
  }
}

/* Until a stream is free; the deadline catches hangs. */
static inline int freed(cudaStream_t stream) {
  double until = seconds() + 20;
  while ((int)cudaStreamQuery(stream) == 600 && seconds() < until) nap();
  return (int)cudaStreamQuery(stream);
}

/* What a communicator says of itself, once it says something. */
static inline ncclResult_t broken(ncclComm_t comm) {
  ncclResult_t state = ncclSuccess;
  for (double until = seconds() + 20; state == ncclSuccess && seconds() < until; nap()) {
    OK(ncclCommGetAsyncError(comm, &state));
  }
  return state;
}

#endif
