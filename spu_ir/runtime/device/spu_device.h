/* Everything that a generated program calls. */
#ifndef SPU_DEVICE_H
#define SPU_DEVICE_H

#include "context.h"
#include "numerics.h"

#endif
