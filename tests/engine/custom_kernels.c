/* SPDX-License-Identifier: Apache-2.0 */
/* The library that test_custom_kernels.py compiles. */
#include <atb_core/kernel_abi.h>
#include <math.h>

/* y = sin(x) * factor, for float32. */
static int32_t scale_check(atb_call* call) {
  double factor;
  if (call->inputs[0].dtype != ATB_FLOAT32) return atb_fail(call, "x must be float32");
  if (!atb_same_shape(&call->inputs[0], &call->outputs[0])) return atb_fail(call, "the shapes differ");
  if (!atb_get_float(call, "factor", &factor)) return atb_fail(call, "attribute 'factor' is missing");
  return 0;
}

static int32_t scale_run(atb_call* call) {
  const float* x = call->inputs[0].data;
  float* y = call->outputs[0].data;
  double factor = 0;
  int64_t begin, end, i;
  atb_get_float(call, "factor", &factor);
  atb_share(call, atb_count(call->inputs), &begin, &end);
  for (i = begin; i < end; ++i) {
    if (x[i] == INFINITY) return atb_fail(call, "no sine of infinity at %lld", (long long)i);
    y[i] = sinf(x[i]) * (float)factor;
  }
  return 0;
}

ATB_KERNEL(scale, scale_check, scale_run);

/* Adds value [n] to target [n], in place. */
static int32_t add_into_run(atb_call* call) {
  const float* value = call->inputs[0].data;
  float* target = call->inputs[1].data;
  int64_t begin, end, i;
  atb_share(call, atb_count(&call->inputs[1]), &begin, &end);
  for (i = begin; i < end; ++i) target[i] += value[i];
  return 0;
}

ATB_KERNEL(add_into, NULL, add_into_run);

/* Built for an ABI that this engine does not have. */
__attribute__((visibility("default")))
const atb_kernel newer = {ATB_KERNEL_MAGIC, ATB_KERNEL_ABI_VERSION + 1, NULL, scale_run};

/* No kernel at all. */
__attribute__((visibility("default"))) int number = 5;

/* The layout of the structures as this compiler sees it, for comparison with ctypes. */
#define OFFSET(type, member) (int32_t)offsetof(type, member)
__attribute__((visibility("default")))
const int32_t tensor_layout[] = {OFFSET(atb_tensor, data),  OFFSET(atb_tensor, shape), OFFSET(atb_tensor, rank),
                                 OFFSET(atb_tensor, dtype), sizeof(atb_tensor),        -1};
__attribute__((visibility("default"))) const int32_t attribute_layout[] = {
    OFFSET(atb_attribute, name),     OFFSET(atb_attribute, integer), OFFSET(atb_attribute, number),
    OFFSET(atb_attribute, text),     OFFSET(atb_attribute, list),    OFFSET(atb_attribute, type),
    OFFSET(atb_attribute, reserved), sizeof(atb_attribute),          -1};
__attribute__((visibility("default"))) const int32_t call_layout[] = {OFFSET(atb_call, size),
                                                                      OFFSET(atb_call, op),
                                                                      OFFSET(atb_call, inputs),
                                                                      OFFSET(atb_call, outputs),
                                                                      OFFSET(atb_call, attributes),
                                                                      OFFSET(atb_call, num_inputs),
                                                                      OFFSET(atb_call, num_outputs),
                                                                      OFFSET(atb_call, num_attributes),
                                                                      OFFSET(atb_call, part),
                                                                      OFFSET(atb_call, parts),
                                                                      OFFSET(atb_call, reserved),
                                                                      OFFSET(atb_call, message),
                                                                      OFFSET(atb_call, message_size),
                                                                      OFFSET(atb_call, scratch),
                                                                      OFFSET(atb_call, scratch_bytes),
                                                                      OFFSET(atb_call, work),
                                                                      sizeof(atb_call),
                                                                      -1};
__attribute__((visibility("default")))
const int32_t kernel_layout[] = {OFFSET(atb_kernel, magic), OFFSET(atb_kernel, abi_version),
                                 OFFSET(atb_kernel, check), OFFSET(atb_kernel, run),
                                 sizeof(atb_kernel),        -1};
