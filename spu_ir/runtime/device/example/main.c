/*
 * Runs the exported model once:
 *
 *   ./model-c [--extent NUMBER=VALUE]... [--input NUMBER=FILE]... [--output NUMBER=FILE]...
 *             [--threads N] [--weights FILE]
 *
 * Files hold an array's bytes in row-major order. Inputs without a file are zero, extents
 * without a value are at their minimum (but at least 1). Prints what each output holds.
 */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "host.h"
#include "ports.h"

#ifndef SPU_LEVEL
#define SPU_LEVEL 0
#endif

static int fail(const char *what, const char *which) {
  fprintf(stderr, "error: %s %s\n", what, which);
  exit(1);
}

/* Zeroed memory, aligned for vectors and with the slack that programs may read behind. */
static void *allocate(int64_t bytes) {
  size_t size = ((size_t)bytes + SPU_SLACK + 4095) / 4096 * 4096;
  void *memory = aligned_alloc(4096, size);
  if (memory == NULL) fail("out of memory", "");
  return memset(memory, 0, size);
}

static void read_file(const char *path, void *to, int64_t bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail(strerror(errno), path);
  if (fread(to, 1, (size_t)bytes, file) != (size_t)bytes || fgetc(file) != EOF)
    fail("the wrong number of bytes in", path);
  fclose(file);
}

static int64_t file_bytes(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail(strerror(errno), path);
  fseek(file, 0, SEEK_END);
  long bytes = ftell(file);
  fclose(file);
  return bytes;
}

/* Splits NUMBER=REST; the number must be below `count`. */
static const char *numbered(const char *text, int count, int *number) {
  char *end;
  long parsed = strtol(text, &end, 10);
  if (end == text || *end != '=' || parsed < 0 || parsed >= count) fail("expected NUMBER=, got", text);
  *number = (int)parsed;
  return end + 1;
}

static double element(const spu_port *port, const uint8_t *at) {
  const char *dtype = port->dtype;
#define SPU_ELEMENT(name, type) \
  if (strcmp(dtype, name) == 0) { type v; memcpy(&v, at, sizeof v); return (double)v; }
  SPU_ELEMENT("float32", float)
  SPU_ELEMENT("float64", double)
  SPU_ELEMENT("int8", int8_t)
  SPU_ELEMENT("uint8", uint8_t)
  SPU_ELEMENT("bool", uint8_t)
  SPU_ELEMENT("int16", int16_t)
  SPU_ELEMENT("uint16", uint16_t)
  SPU_ELEMENT("int32", int32_t)
  SPU_ELEMENT("uint32", uint32_t)
  SPU_ELEMENT("int64", int64_t)
  SPU_ELEMENT("uint64", uint64_t)
#undef SPU_ELEMENT
  if (strcmp(dtype, "bfloat16") == 0) {
    uint32_t bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 24;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
  }
  return NAN;
}

int main(int argc, char **argv) {
  const char *input_files[SPU_INPUTS + 1] = {0}, *output_files[SPU_OUTPUTS + 1] = {0};
  const char *weights_file = "weights.bin";
  int64_t extents[SPU_EXTENTS + 1] = {0};
  int threads = 1, number;
  for (int i = 0; i < SPU_EXTENTS; ++i)
    extents[i] = spu_extents[i].minimum > 1 ? spu_extents[i].minimum : 1;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) fail("expected a value after", argv[i]);
    const char *value = argv[i + 1];
    if (strcmp(argv[i], "--extent") == 0) {
      value = numbered(value, SPU_EXTENTS, &number);
      extents[number] = strtoll(value, NULL, 10);
    } else if (strcmp(argv[i], "--input") == 0) {
      value = numbered(value, SPU_INPUTS, &number);
      input_files[number] = value;
    } else if (strcmp(argv[i], "--output") == 0) {
      value = numbered(value, SPU_OUTPUTS, &number);
      output_files[number] = value;
    } else if (strcmp(argv[i], "--threads") == 0) {
      threads = atoi(value);
    } else if (strcmp(argv[i], "--weights") == 0) {
      weights_file = value;
    } else {
      fail("unknown option", argv[i]);
    }
  }
  if (!spu_cpu_supports(SPU_LEVEL)) fail("this processor is beyond ISA level; build with", "ISA=c");
  for (int i = 0; i < SPU_EXTENTS; ++i)
    if (extents[i] < spu_extents[i].minimum || extents[i] > spu_extents[i].maximum)
      fail("out of its bounds: extent", spu_extents[i].name);

  const void *inputs[SPU_INPUTS + 1] = {0};
  void *outputs[SPU_OUTPUTS + 1] = {0};
  int64_t counts[SPU_OUTPUTS + 1] = {0}, shape[64];
  for (int i = 0; i < SPU_INPUTS; ++i) {
    int64_t bytes = spu_inputs[i].bytes;
    for (int axis = 0; axis < spu_inputs[i].rank; ++axis) {
      int64_t d = spu_inputs[i].shape[axis];
      bytes *= d < 0 ? extents[-1 - d] : d;
    }
    void *input = allocate(bytes);
    if (input_files[i] != NULL) read_file(input_files[i], input, bytes);
    inputs[i] = input;
  }
  for (int i = 0; i < SPU_OUTPUTS; ++i) {
    if (spu_outputs[i].rank > 64) fail("too many axes in output", spu_outputs[i].name);
    spu_output_shape(i, extents, shape);
    counts[i] = 1;
    for (int axis = 0; axis < spu_outputs[i].rank; ++axis) counts[i] *= shape[axis];
    outputs[i] = allocate(counts[i] * spu_outputs[i].bytes);
  }
  int64_t weights_bytes = file_bytes(weights_file);
  uint8_t *weights = allocate(weights_bytes);
  read_file(weights_file, weights, weights_bytes);

  spu_context context = {.weights = weights,
                         .arena = allocate(spu_arena_bytes(extents)),
                         .parallel = spu_pool_parallel(),
                         .pool = spu_pool_get(threads),
                         .threads = threads};
  int32_t code = spu_run(&context, extents, inputs, outputs);
  if (code != SPU_OK) fail("the run failed:", code == SPU_BAD_INDEX ? "bad index" : "bad extent");

  for (int i = 0; i < SPU_OUTPUTS; ++i) {
    const spu_port *port = &spu_outputs[i];
    spu_output_shape(i, extents, shape);
    printf("output %d %s %s [", i, port->name, port->dtype);
    for (int axis = 0; axis < port->rank; ++axis)
      printf("%s%lld", axis ? ", " : "", (long long)shape[axis]);
    double low = INFINITY, high = -INFINITY, sum = 0;
    for (int64_t j = 0; j < counts[i]; ++j) {
      double v = element(port, (const uint8_t *)outputs[i] + j * port->bytes);
      low = v < low ? v : low;
      high = v > high ? v : high;
      sum += v;
    }
    printf("] min %g mean %g max %g\n", low, sum / (double)counts[i], high);
    if (output_files[i] != NULL) {
      FILE *file = fopen(output_files[i], "wb");
      size_t bytes = (size_t)(counts[i] * port->bytes);
      if (file == NULL || fwrite(outputs[i], 1, bytes, file) != bytes || fclose(file) != 0)
        fail("cannot write", output_files[i]);
    }
  }
  return 0;
}
