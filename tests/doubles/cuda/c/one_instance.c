/* Opened under all its names, the double is one library with one state. */
#include <dlfcn.h>
#include <stdio.h>

static void* open_as(const char* name) {
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) fprintf(stderr, "%s\n", dlerror());
  return library;
}

int main(void) {
  void* driver = open_as("libcuda.so.1");
  void* twelve = open_as("libcudart.so.12");
  void* thirteen = open_as("libcudart.so.13");
  int (*set)(int), (*get)(int*), device = -1;

  if (driver == NULL || twelve == NULL || thirteen == NULL) return 1;
  if (dlsym(driver, "cuInit") == NULL || dlsym(driver, "cuInit") != dlsym(thirteen, "cuInit")) return 2;
  *(void**)&set = dlsym(twelve, "cudaSetDevice");
  *(void**)&get = dlsym(thirteen, "cudaGetDevice");
  if (set == NULL || get == NULL || set(1) != 0 || get(&device) != 0 || device != 1) return 3;
  puts("ok");
  return 0;
}
