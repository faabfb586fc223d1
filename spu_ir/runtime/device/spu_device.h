/* Everything that a generated program calls. */
#ifndef SPU_DEVICE_H
#define SPU_DEVICE_H

#include "attention.h"
#include "attention_int8.h"
#include "context.h"
#include "counters.h"
#include "numerics.h"
#include "samples.h"
#include "spu.h"
#include "spu_depthwise.h"
#include "vpu.h"

#endif
