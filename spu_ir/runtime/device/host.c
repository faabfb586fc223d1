/*
 * The part of a model's library that is the same for every model. It is compiled for the
 * baseline of the architecture whatever the program's ISA level is, so that it can tell
 * whether the program may be called.
 */
#include "pool.h"

#include "host.h"

int32_t spu_cpu_supports(int32_t level) {
  if (level <= 0) return level == 0;
#if defined(__x86_64__)
  /* These ask CPUID and, for the vector registers, XGETBV. */
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2")) return 0;
  if (level == 1) return 1;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512vnni"))
    return 0;
  if (level == 2) return 1;
  return level == 3 && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512bf16");
#else
  return 0;
#endif
}
