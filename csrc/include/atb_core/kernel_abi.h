/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI by which a plugin brings kernels for its own ops to the CPU engine. Plain C99, no library to link.
 *
 * A kernel is two functions and the constant that names them:
 *
 *   static int32_t check(atb_call *call);   shapes, types and attributes of one node: can it run?
 *   static int32_t run(atb_call *call);     one part of the work
 *   ATB_KERNEL(scale_kernel, check, run);   the exported symbol
 *
 * Both return 0, or anything else after atb_fail() has said why; the engine turns that into an error with the op's
 * name and its place in the model.
 *
 * The engine calls `check` once for each choice of sizes, before anything runs, with shapes and types as the op's shape
 * rule gave them and no data. It calls `run` in every run, once for each part, on threads of its own: at the same time
 * or one after another, in any order. Parts cannot wait for each other. A kernel splits its work over what it writes,
 * never over a sum, so that its results do not depend on the number of parts (see atb_share).
 *
 * Rules for both functions:
 *   - Inputs are only read, except those that the op declares in `writes`. Every element of every output is written.
 *   - Tensors are contiguous and row-major; their data is aligned to the size of one element, no more is promised.
 *     Outputs share no memory with inputs. `data` may be NULL where there are no elements.
 *   - Nothing of the call may be used after the function has returned.
 *   - The threads flush denormals to zero; a kernel leaves the floating-point state as it finds it.
 *
 * Compatibility: an engine runs kernels of its own ABI version and refuses others by name. Within a version the layout
 * of atb_tensor, atb_attribute and atb_kernel is fixed, and atb_call only grows at its end: a kernel that uses a member
 * added later compares `size` with the offset of the member first.
 */
#ifndef ATB_KERNEL_ABI_H
#define ATB_KERNEL_ABI_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATB_KERNEL_ABI_VERSION 1u

/* Tells an atb_kernel from any other symbol. */
#define ATB_KERNEL_MAGIC 0x4B425441u

/* Bytes that `message` has room for, the final zero included. */
#define ATB_MESSAGE_SIZE 512

/* Element types. ATB_BOOL is one byte, 0 or 1. */
enum { ATB_FLOAT32 = 0, ATB_FLOAT16 = 1, ATB_BFLOAT16 = 2, ATB_INT8 = 3, ATB_INT32 = 4, ATB_INT64 = 5, ATB_BOOL = 6 };

typedef struct atb_tensor {
  void* data; /* NULL in check */
  const int64_t* shape;
  int32_t rank; /* 0: one element */
  int32_t dtype;
} atb_tensor;

enum {
  ATB_ATTRIBUTE_BOOL = 0,
  ATB_ATTRIBUTE_INT = 1,
  ATB_ATTRIBUTE_FLOAT = 2,
  ATB_ATTRIBUTE_TEXT = 3,
  ATB_ATTRIBUTE_LIST = 4
};

/* A field of the op's Python class. Enums come as their text, None not at all; `out_dtype` is the output's type. */
typedef struct atb_attribute {
  const char* name;
  int64_t integer;     /* BOOL: 0 or 1; INT: the value; TEXT and LIST: the length */
  double number;       /* FLOAT: the value; INT: the same as a float */
  const char* text;    /* TEXT: UTF-8, ends with a zero */
  const int64_t* list; /* LIST: integers */
  int32_t type;
  int32_t reserved;
} atb_attribute;

typedef struct atb_call {
  size_t size;    /* sizeof(atb_call) in the engine that calls */
  const char* op; /* the op's name */
  const atb_tensor* inputs;
  const atb_tensor* outputs;
  const atb_attribute* attributes;
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_attributes;
  int32_t part;  /* 0 ... parts - 1; 0 in check */
  int32_t parts; /* in check: the most that there can be */
  int32_t reserved;
  char* message;       /* what went wrong, when the function does not return 0; written by atb_fail */
  size_t message_size; /* bytes that it has room for */

  /* run: `scratch_bytes` of memory for this part alone, aligned to 64 bytes, of undefined content. */
  void* scratch;

  /* Written by check, if at all. */
  size_t scratch_bytes; /* memory that each part needs; 0 */
  double work;          /* how much there is to do, in bytes moved to or from memory in the same time. Little work is
                           not split. Negative: what inputs and outputs have; enough unless much is computed. */
} atb_call;

typedef int32_t (*atb_kernel_function)(atb_call* call);

typedef struct atb_kernel {
  uint32_t magic;
  uint32_t abi_version;
  atb_kernel_function check; /* NULL: whatever the op's shape rule allows */
  atb_kernel_function run;
} atb_kernel;

#ifdef __cplusplus
} /* extern "C" */
#define ATB_KERNEL_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define ATB_KERNEL_EXPORT __attribute__((visibility("default")))
#endif

/* Defines and exports the kernel `name`. */
#define ATB_KERNEL(name, check, run) \
  ATB_KERNEL_EXPORT const atb_kernel name = {ATB_KERNEL_MAGIC, ATB_KERNEL_ABI_VERSION, check, run}

/* Leaves a message as printf would and returns 1: `return atb_fail(call, "x has %d dimensions", rank);` */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline int32_t atb_fail(atb_call* call, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call->message, call->message_size, format, arguments);
  va_end(arguments);
  return 1;
}

/* The number of elements. */
static inline int64_t atb_count(const atb_tensor* tensor) {
  int64_t count = 1;
  for (int32_t axis = 0; axis < tensor->rank; ++axis) count *= tensor->shape[axis];
  return count;
}

static inline int atb_same_shape(const atb_tensor* a, const atb_tensor* b) {
  if (a->rank != b->rank) return 0;
  for (int32_t axis = 0; axis < a->rank; ++axis) {
    if (a->shape[axis] != b->shape[axis]) return 0;
  }
  return 1;
}

/* This part's share [*begin, *end) of n units of work; together the parts have each unit once. */
static inline void atb_share(const atb_call* call, int64_t n, int64_t* begin, int64_t* end) {
  const int64_t part = call->part, each = n / call->parts, rest = n % call->parts;
  *begin = each * part + (part < rest ? part : rest);
  *end = *begin + each + (part < rest ? 1 : 0);
}

/* The attribute called `name` if it is there and of this type, else NULL. */
static inline const atb_attribute* atb_find(const atb_call* call, const char* name, int32_t type) {
  for (int32_t i = 0; i < call->num_attributes; ++i) {
    const atb_attribute* attribute = &call->attributes[i];
    if (strcmp(attribute->name, name) == 0) return attribute->type == type ? attribute : NULL;
  }
  return NULL;
}

/* The getters return 1 and set *value, or return 0 and leave it when there is no such attribute of this type. */

static inline int atb_get_bool(const atb_call* call, const char* name, int* value) {
  const atb_attribute* found = atb_find(call, name, ATB_ATTRIBUTE_BOOL);
  if (found != NULL) *value = found->integer != 0;
  return found != NULL;
}

static inline int atb_get_int(const atb_call* call, const char* name, int64_t* value) {
  const atb_attribute* found = atb_find(call, name, ATB_ATTRIBUTE_INT);
  if (found != NULL) *value = found->integer;
  return found != NULL;
}

/* An integer is a float, too. */
static inline int atb_get_float(const atb_call* call, const char* name, double* value) {
  const atb_attribute* found = atb_find(call, name, ATB_ATTRIBUTE_FLOAT);
  if (found == NULL) found = atb_find(call, name, ATB_ATTRIBUTE_INT);
  if (found != NULL) *value = found->number;
  return found != NULL;
}

static inline int atb_get_text(const atb_call* call, const char* name, const char** value) {
  const atb_attribute* found = atb_find(call, name, ATB_ATTRIBUTE_TEXT);
  if (found != NULL) *value = found->text;
  return found != NULL;
}

static inline int atb_get_list(const atb_call* call, const char* name, const int64_t** values, int64_t* length) {
  const atb_attribute* found = atb_find(call, name, ATB_ATTRIBUTE_LIST);
  if (found != NULL) {
    *values = found->list;
    *length = found->integer;
  }
  return found != NULL;
}

#endif /* ATB_KERNEL_ABI_H */
