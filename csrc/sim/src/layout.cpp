// SPDX-License-Identifier: Apache-2.0
// The simulator's structures have the sizes of ATB's: code that is compiled against one set of headers describes the
// same memory as code that is compiled against the other. Sizes with std::string hold for its newer ABI.
#include <atb/atb_infer.h>

namespace {

using namespace atb;
using namespace atb::infer;

static_assert(sizeof(Dims) == 72);
static_assert(sizeof(TensorDesc) == 80);
static_assert(sizeof(Tensor) == 104);
static_assert(sizeof(Chunk) == 8);
static_assert(sizeof(SVector<int32_t>) == 288);
static_assert(sizeof(SVector<int64_t>) == 544);
static_assert(sizeof(SVector<Tensor>) == 6784);
static_assert(sizeof(VariantPack) == 13568);
static_assert(sizeof(Node) == 3232);
static_assert(sizeof(LinearParam) == 32);
static_assert(sizeof(ElewiseParam) == 64);
static_assert(sizeof(ActivationParam) == 24);
static_assert(sizeof(RmsNormParam) == 144);
static_assert(sizeof(LayerNormParam) == 136);
static_assert(sizeof(RopeParam) == 16);
static_assert(sizeof(SelfAttentionParam) == 144);
static_assert(sizeof(PagedAttentionParam) == 120);
static_assert(sizeof(ReshapeAndCacheParam) == 24);
static_assert(sizeof(GatherParam) == 32);
static_assert(sizeof(ConcatParam) == 16);
static_assert(sizeof(SplitParam) == 304);
static_assert(sizeof(SliceParam) == 1096);
static_assert(sizeof(TransposeParam) == 296);
static_assert(sizeof(SetValueParam) == 1640);
static_assert(sizeof(SoftmaxParam) == 552);
static_assert(sizeof(SortParam) == 296);
static_assert(sizeof(RepeatParam) == 552);
static_assert(sizeof(ReduceParam) == 560);
static_assert(sizeof(TransdataParam) == 560);
#if _GLIBCXX_USE_CXX11_ABI
static_assert(sizeof(GraphParam) == 104);
static_assert(sizeof(AllReduceParam) == 232);
static_assert(sizeof(AllGatherParam) == 192);
static_assert(sizeof(LinearParallelParam) == 224);
#else
static_assert(sizeof(GraphParam) == 80);
static_assert(sizeof(AllReduceParam) == 136);
static_assert(sizeof(AllGatherParam) == 120);
static_assert(sizeof(LinearParallelParam) == 152);
#endif

}  // namespace
