/* The instructions of the VPU: everything that is not a matrix product. */
#ifndef SPU_VPU_H
#define SPU_VPU_H

#include "vpu_columns.h"
#include "vpu_image.h"
#include "vpu_move.h"
#include "vpu_pointwise.h"
#include "vpu_pool.h"
#include "vpu_rows.h"
#include "vpu_strided.h"

#endif
