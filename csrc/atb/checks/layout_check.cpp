// SPDX-License-Identifier: Apache-2.0
// Compiled, with nothing in it to link: holds ATB's headers, any of 8.2 to 9.1, to the layouts and numbers that csrc/atb
// and the simulator rely on. Every build with the simulator compiles it against the simulator's headers, and
// tools/check_ascend_headers.py against a vendor's. ATB_CHECK_REDUCED leaves out what the reduced headers of op-plugin
// (BSD-3-Clause) do not declare.
#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace {

// What holds a std::string differs between the C++ ABIs of libstdc++, silently.
constexpr bool kNewAbi = sizeof(std::string) == 32;

template <typename Struct, std::size_t expected, std::size_t actual = sizeof(Struct)>
constexpr bool size_is() {
  static_assert(actual == expected, "the struct has another size than in ATB 8.2 to 9.1");
  return true;
}

#define ATB_CHECK_OFFSET(type, field, expected) \
  static_assert(offsetof(type, field) == (expected), #type "::" #field " lies elsewhere than in ATB 8.2 to 9.1")
#define ATB_CHECK_VALUE(name, expected) \
  static_assert(static_cast<int>(name) == (expected), #name " has another number than in ATB 8.2 to 9.1")

// --- Tensors and graphs ----------------------------------------------------------------------------------------------
static_assert(std::is_same_v<atb::Status, int32_t> && atb::MAX_DIM == 8);
static_assert(size_is<atb::Dims, 72>() && size_is<atb::TensorDesc, 80>() && size_is<atb::Tensor, 104>());
static_assert(size_is<atb::SVector<int32_t>, 288>() && size_is<atb::SVector<int64_t>, 544>());
static_assert(size_is<atb::SVector<atb::Tensor>, 6784>() && size_is<atb::VariantPack, 13568>());
static_assert(size_is<atb::Chunk, 8>() && size_is<atb::Node, 3232>());
static_assert(size_is<atb::GraphParam, kNewAbi ? 104 : 80>());
// Padding hides a narrower field from sizes and offsets.
static_assert(std::is_same_v<decltype(atb::Dims::dims), int64_t[8]> &&
              std::is_same_v<decltype(atb::Dims::dimNum), uint64_t>);
static_assert(std::is_same_v<decltype(atb::Tensor::dataSize), uint64_t> &&
              std::is_same_v<decltype(atb::Tensor::hostData), void*>);
static_assert(std::is_same_v<decltype(atb::Node::inTensorIds), atb::SVector<uint32_t>> &&
              std::is_same_v<decltype(atb::GraphParam::nodes), std::vector<atb::Node>>);
ATB_CHECK_OFFSET(atb::Dims, dimNum, 64);
ATB_CHECK_OFFSET(atb::TensorDesc, format, 4);
ATB_CHECK_OFFSET(atb::TensorDesc, shape, 8);
ATB_CHECK_OFFSET(atb::Tensor, deviceData, 80);
ATB_CHECK_OFFSET(atb::Tensor, hostData, 88);
ATB_CHECK_OFFSET(atb::Tensor, dataSize, 96);
// Structs with constructors of their own are not of standard layout; GCC knows their offsets all the same.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
ATB_CHECK_OFFSET(atb::VariantPack, outTensors, 6784);
ATB_CHECK_OFFSET(atb::Node, inTensorIds, 8);
ATB_CHECK_OFFSET(atb::Node, outTensorIds, 8 + 288);
ATB_CHECK_OFFSET(atb::Node, inTensorReshapeFuncs, 8 + 2 * 288);
ATB_CHECK_OFFSET(atb::GraphParam, inTensorNum, sizeof(std::string));
ATB_CHECK_OFFSET(atb::GraphParam, outTensorNum, sizeof(std::string) + 4);
ATB_CHECK_OFFSET(atb::GraphParam, internalTensorNum, sizeof(std::string) + 8);
ATB_CHECK_OFFSET(atb::GraphParam, nodes, sizeof(std::string) + 16);

ATB_CHECK_VALUE(atb::NO_ERROR, 0);
ATB_CHECK_VALUE(atb::ERROR_INVALID_PARAM, 1);
ATB_CHECK_VALUE(atb::ERROR_RT_FAIL, 4);
ATB_CHECK_VALUE(atb::ERROR_INVALID_TENSOR_DTYPE, 6);
ATB_CHECK_VALUE(atb::ERROR_CANN_ERROR, 12);
ATB_CHECK_VALUE(atb::ERROR_INVALID_TENSOR_INI_MATCH, 13);
ATB_CHECK_VALUE(atb::ERROR_INVALID_SINGLE_OPERATION_PARAM, 17);
ATB_CHECK_VALUE(atb::ERROR_INVALID_STREAM, 21);
ATB_CHECK_VALUE(atb::ERROR_INVALID_WORKSPACE_SIZE, 22);
ATB_CHECK_VALUE(atb::ERROR_HCCL_FAIL, 25);
ATB_CHECK_VALUE(atb::ERROR_OUT_OF_DEVICE_MEMORY, 26);
ATB_CHECK_VALUE(atb::ERROR_OUT_OF_HOST_MEMORY, 27);

// --- ACL -------------------------------------------------------------------------------------------------------------
ATB_CHECK_VALUE(ACL_DT_UNDEFINED, -1);
ATB_CHECK_VALUE(ACL_FLOAT, 0);
ATB_CHECK_VALUE(ACL_FLOAT16, 1);
ATB_CHECK_VALUE(ACL_INT8, 2);
ATB_CHECK_VALUE(ACL_INT32, 3);
ATB_CHECK_VALUE(ACL_UINT8, 4);
ATB_CHECK_VALUE(ACL_UINT32, 8);
ATB_CHECK_VALUE(ACL_INT64, 9);
ATB_CHECK_VALUE(ACL_BOOL, 12);
ATB_CHECK_VALUE(ACL_BF16, 27);
ATB_CHECK_VALUE(ACL_FORMAT_UNDEFINED, -1);
ATB_CHECK_VALUE(ACL_FORMAT_ND, 2);
ATB_CHECK_VALUE(ACL_FORMAT_FRACTAL_NZ, 29);

// --- Parameters that the reduced headers declare, too ----------------------------------------------------------------
using namespace atb::infer;

static_assert(size_is<LinearParam, 32>());
ATB_CHECK_OFFSET(LinearParam, transposeB, 1);
ATB_CHECK_OFFSET(LinearParam, hasBias, 2);
ATB_CHECK_OFFSET(LinearParam, outDataType, 4);
ATB_CHECK_OFFSET(LinearParam, enAccum, 8);

static_assert(size_is<RmsNormParam, 144>());
ATB_CHECK_OFFSET(RmsNormParam, normParam, 8);
ATB_CHECK_OFFSET(RmsNormParam::NormParam, epsilon, 4);
ATB_CHECK_OFFSET(RmsNormParam::NormParam, layerNormEps, 8);
ATB_CHECK_OFFSET(RmsNormParam::NormParam, rstd, 16);
ATB_CHECK_OFFSET(RmsNormParam::NormParam, precisionMode, 20);
ATB_CHECK_OFFSET(RmsNormParam::PreNormParam, epsilon, 4);
ATB_CHECK_OFFSET(RmsNormParam::PreNormParam, hasBias, 8);
ATB_CHECK_VALUE(RmsNormParam::RMS_NORM_NORM, 1);
ATB_CHECK_VALUE(RmsNormParam::RMS_NORM_PRENORM, 2);
ATB_CHECK_VALUE(RmsNormParam::RMS_NORM_POSTNORM, 3);

static_assert(size_is<LayerNormParam, 136>());
ATB_CHECK_OFFSET(LayerNormParam, normParam, 4);
ATB_CHECK_OFFSET(LayerNormParam, preNormParam, 48);
ATB_CHECK_OFFSET(LayerNormParam::NormParam, epsilon, 4);
ATB_CHECK_OFFSET(LayerNormParam::NormParam, beginNormAxis, 8);
ATB_CHECK_OFFSET(LayerNormParam::NormParam, beginParamsAxis, 12);
ATB_CHECK_VALUE(LayerNormParam::LAYER_NORM_NORM, 1);
ATB_CHECK_VALUE(QUANT_UNDEFINED, 0);
ATB_CHECK_VALUE(QUANT_INT8, 2);

static_assert(size_is<RopeParam, 16>());
ATB_CHECK_OFFSET(RopeParam, cosFormat, 4);

static_assert(size_is<SelfAttentionParam, 144>());
ATB_CHECK_OFFSET(SelfAttentionParam, headNum, 8);
ATB_CHECK_OFFSET(SelfAttentionParam, kvHeadNum, 12);
ATB_CHECK_OFFSET(SelfAttentionParam, qScale, 16);
ATB_CHECK_OFFSET(SelfAttentionParam, qkScale, 20);
ATB_CHECK_OFFSET(SelfAttentionParam, batchRunStatusEnable, 24);
ATB_CHECK_OFFSET(SelfAttentionParam, isTriuMask, 28);
ATB_CHECK_OFFSET(SelfAttentionParam, calcType, 32);
ATB_CHECK_OFFSET(SelfAttentionParam, kernelType, 36);
ATB_CHECK_OFFSET(SelfAttentionParam, clampType, 40);
ATB_CHECK_OFFSET(SelfAttentionParam, clampMin, 44);
ATB_CHECK_OFFSET(SelfAttentionParam, clampMax, 48);
ATB_CHECK_OFFSET(SelfAttentionParam, maskType, 52);
ATB_CHECK_OFFSET(SelfAttentionParam, kvcacheCfg, 56);
ATB_CHECK_OFFSET(SelfAttentionParam, scaleType, 60);
ATB_CHECK_OFFSET(SelfAttentionParam, inputLayout, 64);
ATB_CHECK_OFFSET(SelfAttentionParam, mlaVHeadSize, 68);
ATB_CHECK_OFFSET(SelfAttentionParam, cacheType, 72);
ATB_CHECK_OFFSET(SelfAttentionParam, windowSize, 76);
ATB_CHECK_VALUE(SelfAttentionParam::PA_ENCODER, 3);
ATB_CHECK_VALUE(SelfAttentionParam::KERNELTYPE_HIGH_PRECISION, 1);
ATB_CHECK_VALUE(SelfAttentionParam::MASK_TYPE_NORM, 1);
ATB_CHECK_VALUE(SelfAttentionParam::MASK_TYPE_NORM_COMPRESS, 3);

static_assert(size_is<PagedAttentionParam, 120>());
ATB_CHECK_OFFSET(PagedAttentionParam, qkScale, 4);
ATB_CHECK_OFFSET(PagedAttentionParam, kvHeadNum, 8);
ATB_CHECK_OFFSET(PagedAttentionParam, maskType, 12);
ATB_CHECK_OFFSET(PagedAttentionParam, quantType, 20);
ATB_CHECK_OFFSET(PagedAttentionParam, outDataType, 24);
ATB_CHECK_OFFSET(PagedAttentionParam, hasQuantOffset, 28);
ATB_CHECK_OFFSET(PagedAttentionParam, compressType, 32);
ATB_CHECK_OFFSET(PagedAttentionParam, calcType, 36);
ATB_CHECK_OFFSET(PagedAttentionParam, scaleType, 40);
ATB_CHECK_OFFSET(PagedAttentionParam, inputLayout, 44);
ATB_CHECK_OFFSET(PagedAttentionParam, mlaVHeadSize, 48);
ATB_CHECK_VALUE(PagedAttentionParam::MASK_TYPE_NORM, 1);
ATB_CHECK_VALUE(PagedAttentionParam::MASK_TYPE_SPEC, 3);
ATB_CHECK_VALUE(PagedAttentionParam::CALC_TYPE_SPEC, 1);

static_assert(size_is<ReshapeAndCacheParam, 24>());
ATB_CHECK_OFFSET(ReshapeAndCacheParam, kvCacheCfg, 4);
ATB_CHECK_VALUE(ReshapeAndCacheParam::K_CACHE_V_CACHE, 0);
ATB_CHECK_VALUE(ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ, 2);

static_assert(size_is<ElewiseParam, 64>());
ATB_CHECK_OFFSET(ElewiseParam, quantParam, 4);
ATB_CHECK_OFFSET(ElewiseParam, mulsParam, 36);
ATB_CHECK_OFFSET(ElewiseParam, outTensorType, 52);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_CAST, 1);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_MULS, 2);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_COS, 3);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_SIN, 4);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_NEG, 5);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_LOGICAL_NOT, 7);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_ADD, 8);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_MUL, 9);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_REALDIV, 10);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_LOGICAL_AND, 11);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_LOGICAL_OR, 12);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_LESS, 13);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_GREATER, 14);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_SUB, 15);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_EQUAL, 16);
ATB_CHECK_VALUE(ElewiseParam::ELEWISE_TANH, 20);

ATB_CHECK_VALUE(ACTIVATION_RELU, 1);
ATB_CHECK_VALUE(ACTIVATION_GELU, 2);
ATB_CHECK_VALUE(ACTIVATION_SWISH, 4);
ATB_CHECK_VALUE(ACTIVATION_LOG, 5);
ATB_CHECK_VALUE(ACTIVATION_SWIGLU_FORWARD, 6);
ATB_CHECK_VALUE(ACTIVATION_SIGMOID, 8);
ATB_CHECK_VALUE(COMM_MULTI_PROCESS, 0);
ATB_CHECK_VALUE(COMM_MULTI_THREAD, 1);

// --- What only the full headers declare ------------------------------------------------------------------------------
#ifndef ATB_CHECK_REDUCED
ATB_CHECK_OFFSET(LinearParam, matmulType, 9);
ATB_CHECK_OFFSET(LinearParam, quantMode, 10);

static_assert(size_is<ActivationParam, 24>());
ATB_CHECK_OFFSET(ActivationParam, scale, 4);
ATB_CHECK_OFFSET(ActivationParam, dim, 8);
ATB_CHECK_OFFSET(ActivationParam, geluMode, 12);

static_assert(size_is<GatherParam, 32>());
ATB_CHECK_OFFSET(GatherParam, batchDims, 8);
static_assert(size_is<ConcatParam, 16>());
static_assert(size_is<SplitParam, 304>());
ATB_CHECK_OFFSET(SplitParam, splitNum, 4);
ATB_CHECK_OFFSET(SplitParam, splitSizes, 8);
static_assert(size_is<SliceParam, 1096>());
ATB_CHECK_OFFSET(SliceParam, size, 544);
static_assert(size_is<TransposeParam, 296>());
static_assert(size_is<SoftmaxParam, 552>());
static_assert(size_is<SortParam, 296>());
static_assert(size_is<ReduceParam, 560>());
ATB_CHECK_OFFSET(ReduceParam, axis, 8);
static_assert(size_is<RepeatParam, 552>());
static_assert(size_is<SetValueParam, 1640>());
ATB_CHECK_OFFSET(SetValueParam, ends, 544);
ATB_CHECK_OFFSET(SetValueParam, strides, 1088);
static_assert(size_is<TransdataParam, 560>());
ATB_CHECK_OFFSET(TransdataParam, outCrops, 8);
ATB_CHECK_VALUE(TransdataParam::FRACTAL_NZ_TO_ND, 1);
ATB_CHECK_VALUE(TransdataParam::ND_TO_FRACTAL_NZ, 2);

static_assert(size_is<AllReduceParam, kNewAbi ? 232 : 136>());
static_assert(size_is<AllGatherParam, kNewAbi ? 192 : 120>());
static_assert(size_is<LinearParallelParam, kNewAbi ? 224 : 152>());
// rank, rankSize, rankRoot, then strings in an order that differs from struct to struct.
ATB_CHECK_OFFSET(AllReduceParam, rankSize, 4);
ATB_CHECK_OFFSET(AllReduceParam, backend, 16 + sizeof(std::string));
ATB_CHECK_OFFSET(AllReduceParam, hcclComm, 16 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(AllGatherParam, rankSize, 4);
ATB_CHECK_OFFSET(AllGatherParam, backend, 16);
ATB_CHECK_OFFSET(AllGatherParam, hcclComm, 16 + sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, rank, 4);
ATB_CHECK_OFFSET(LinearParallelParam, rankSize, 8);
ATB_CHECK_OFFSET(LinearParallelParam, hasResidual, 16);
ATB_CHECK_OFFSET(LinearParallelParam, backend, 24);
ATB_CHECK_OFFSET(LinearParallelParam, hcclComm, 24 + sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, commMode, 32 + sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, rankTableFile, 40 + sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, type, 40 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, keepIntermediate, 44 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, quantType, 48 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, quantGroupSize, 52 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, outDataType, 56 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, commDomain, 64 + 2 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, twoDimTPInfo, 64 + 3 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam, moeInfo, 72 + 3 * sizeof(std::string));
ATB_CHECK_OFFSET(LinearParallelParam::TwoDimTPInfo, rsDim, 2);
ATB_CHECK_OFFSET(LinearParallelParam::TwoDimTPInfo, innerDimIsAg, 4);
ATB_CHECK_OFFSET(LinearParallelParam::MoeInfo, epSize, 2);
ATB_CHECK_OFFSET(LinearParallelParam::MoeInfo, tpSize, 3);
ATB_CHECK_VALUE(LinearParallelParam::LINEAR_ALL_REDUCE, 0);
ATB_CHECK_VALUE(LinearParallelParam::QUANT_TYPE_UNQUANT, -1);
#endif

}  // namespace
