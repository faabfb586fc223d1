/* What host.c adds to a program, so that it can be loaded, checked and run on many threads. */
#ifndef SPU_HOST_H
#define SPU_HOST_H

#include <stdint.h>

#include "context.h"

/*
 * Whether this processor and its operating system run code of an ISA level:
 * 0 c, 1 avx2, 2 avx512vnni, 3 avx512vbmi. Itself it needs level c only.
 */
int32_t spu_cpu_supports(int32_t level);

/* See pool.h. */
void *spu_pool_get(int32_t threads);
spu_parallel_fn spu_pool_parallel(void);

#endif
