/* What the double of CUDA exports beyond CUDA, for tests, and the little of CUDA that a test needs which must
 * build without CUDA's own headers: define MW_DOUBLE_CUDA_DECLARE for that. */
#ifndef MWDOUBLE_CUDA_H
#define MWDOUBLE_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Breaks a device with a sticky error: every call that touches it returns the error, its streams drop their
 * work and everybody who waits for them gets the error. Returns 0 or a cudaError_t. */
int mwDoubleCudaPoison(int device, int error);

/* Makes a broken device work again. What was dropped stays dropped. */
int mwDoubleCudaHeal(int device);

/* How often the program called the function with this name ("cudaMalloc"), in this process. */
uint64_t mwDoubleCudaCalls(const char* name);

/* Holds a stream (a cudaStream_t or CUstream): it takes up no work after that which it is at. Default streams
 * are those of the current device and thread. */
int mwDoubleCudaPark(void* stream);

/* Lets a held stream go on; so does destroying it. */
int mwDoubleCudaUnpark(void* stream);

#ifdef MW_DOUBLE_CUDA_DECLARE
typedef int cudaError_t;
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
enum { cudaSuccess = 0, cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaStreamNonBlocking = 1 };
enum { cudaErrorNotReady = 600, cudaErrorIllegalAddress = 700 };
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaGetLastError(void);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaMalloc(void** address, size_t bytes);
cudaError_t cudaFree(void* address);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, int kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
#endif

#ifdef __cplusplus
}
#endif

#endif
