// SPDX-License-Identifier: Apache-2.0
#include "ops/columns.h"

#include <cctype>
#include <sstream>
#include <string_view>

#include "ops/reject.h"
#include "ops/shapes.h"

namespace atb::sim {
namespace {

// "T T i32 > T" over "f16 bf16" is two columns. A type may carry ":nz"; without it the format is ND. "..." after a type
// repeats it for the tensors that are left on its side.
struct Row {
  const char* key;
  const char* families;  // letters: 2 = 910B, 3 = 310P, 5 = 950
  const char* pattern;
  const char* types;
};

constexpr Row kRows[] = {
    {"LinearOperationMatmul", "235", "T T > T", "f16 bf16"},
    {"LinearOperationMatmul", "235", "T T:nz > T", "f16 bf16"},
    {"LinearOperationMatmul", "2", "T T > T", "f32"},
    {"LinearOperationMatmulWithBias", "235", "T T T > T", "f16 bf16"},
    {"LinearOperationMatmulWithBias", "235", "T T:nz T > T", "f16 bf16"},
    {"LinearOperationMatmulWithBias", "2", "T T f32 > T", "f16 bf16"},
    {"LinearOperationMatmulAccum", "2", "T T f32 > f32", "f16 bf16"},
    {"LinearOperationMatmulDequantFloat16", "2", "i8 i8 T > f16", "i64 u64"},
    {"LinearOperationMatmulDequantWithBiasFloat16", "2", "i8 i8 i32 T > f16", "i64 u64"},
    {"LinearOperationMatmulDequantWithBiasFloat16", "3", "i8 i8:nz i32 T > f16", "i64 u64"},
    {"LinearOperationMatmulDequantBf16", "2", "i8 i8 f32 > bf16", "f32"},
    {"LinearOperationMatmulDequantWithBiasBf16", "2", "i8 i8 i32 f32 > bf16", "f32"},
    {"LinearOperationMatmulDequantPerTokenFloat16", "2", "i8 i8 f32 f32 > f16", "f32"},
    {"LinearOperationMatmulDequantPerTokenBf16", "2", "i8 i8 f32 f32 > bf16", "f32"},
    {"LinearParallelOperation", "2", "T T... > T", "f16 bf16"},
    {"RmsNormOperationNORM", "235", "T T > T", "f16 bf16"},
    {"RmsNormOperationNORMWithRSTD", "2", "f32 f32 > f32 f32", "f32"},
    {"RmsNormOperationPRENORM", "235", "T T... > T T", "f16 bf16"},
    {"RmsNormOperationNORMAndQUANT", "23", "f16 f16 f16 f16 i8 > i8", "f16"},
    {"RmsNormOperationPRENORMAndQUANT", "23", "f16 f16 f16 f16 f16 i8 > i8 f16", "f16"},
    {"RmsNormOperationPOSTNORM", "235", "T T... > T", "f16 bf16"},
    {"LayerNormOperationNorm", "25", "T T T > T", "f16 f32 bf16"},
    {"LayerNormOperationNorm", "3", "T T T > T", "f16"},
    {"RopeOperation", "235", "T T T T i32 > T T", "f16 bf16"},
    {"RopeOperation", "235", "T T T T u32 > T T", "f16 bf16"},
    {"RopeOperation", "235", "f16 f16 f32 f32 i32 > f16 f16", "f16"},
    {"RopeOperation", "235", "f16 f16 f32 f32 u32 > f16 f16", "f16"},
    {"SelfAttentionOperationEncoder", "2", "T T T T i32 > T", "f16 bf16"},
    {"SelfAttentionOperationEncoder", "3", "f16 f16 f16 f16:nz i32 > f16", "f16"},
    {"SelfAttentionOperationEncoder", "3", "f16 f16 f16 f16 i32 > f16", "f16"},
    {"SelfAttentionOperationEncoderMask0", "23", "T T T i32 > T", "f16 bf16"},
    {"PagedAttentionOperation", "2", "T T T i32 i32 > T", "f16 bf16"},
    {"PagedAttentionOperation", "3", "f16 f16:nz f16:nz i32 i32 > f16", "f16"},
    {"PagedAttentionOperationMask", "2", "T T T i32 i32 T > T", "f16 bf16"},
    {"PagedAttentionOperationMask", "3", "f16 f16:nz f16:nz i32 i32 f16:nz > f16", "f16"},
    {"PagedAttentionOperationQLens", "3", "f16 f16:nz f16:nz i32 i32 i32 > f16", "f16"},
    {"PagedAttentionOperationMaskQLens", "2", "T T T i32 i32 T i32 > T", "f16 bf16"},
    {"PagedAttentionOperationMaskQLens", "3", "f16 f16:nz f16:nz i32 i32 f16:nz i32 > f16", "f16"},
    {"PagedAttentionOperationMaskQLens", "3", "f16 f16:nz f16:nz i32 i32 f16 i32 > f16", "f16"},
    {"ReshapeAndCacheOperation", "25", "T T T T i32 > T T", "f16 bf16 i8"},
    {"ReshapeAndCacheOperationSISO", "25", "T T i32 > T", "f16 bf16 i8"},
    {"ReshapeAndCacheOperationAtlas300", "3", "T T T:nz T:nz i32 > T:nz T:nz", "f16 i8"},
    {"ReshapeAndCacheOperationAtlas800A2NZ", "2", "f16 T f16:nz T:nz i32 > f16:nz T:nz", "f16 bf16"},
    {"ReshapeAndCacheOperationAtlas800A2NZ", "2", "bf16 T bf16:nz T:nz i32 > bf16:nz T:nz", "f16 bf16"},
    {"ReshapeAndCacheOperationAtlas800A2NZ", "2", "i8 T i8:nz T:nz i32 > i8:nz T:nz", "f16 bf16"},
    {"ActivationOperationRELU", "23", "T > T", "f32 bf16"},
    {"ActivationOperationGELU", "235", "T > T", "f32 f16 bf16"},
    {"ActivationOperationFAST_GELU", "23", "T > T", "f16 bf16"},
    {"ActivationOperationSWISH", "235", "T > T", "f16 bf16"},
    {"ActivationOperationLOG", "23", "T > T", "f32 f16 bf16"},
    {"ActivationOperationSWIGLU_FORWARD", "235", "T > T", "f32 f16 bf16"},
    {"ActivationOperationSWIGLU_BACKWARD", "2", "T T > T", "f32 f16 bf16"},
    {"ActivationOperationSIGMOID", "235", "T > T", "f16 bf16"},
    {"ActivationOperationFASTER_GELU_FORWARD", "23", "T > T", "f32 f16 bf16"},
    {"ElewiseOperationCAST", "235", "f16 > f32", "f32"},
    {"ElewiseOperationCAST", "235", "f32 > f16", "f32"},
    {"ElewiseOperationCAST", "235", "i32 > i64", "f32"},
    {"ElewiseOperationCAST", "235", "i64 > i32", "f32"},
    {"ElewiseOperationCAST", "25", "bf16 > f32", "f32"},
    {"ElewiseOperationCAST", "25", "f32 > bf16", "f32"},
    {"ElewiseOperationMULS", "235", "T > T", "f16 f32 bf16"},
    {"ElewiseOperationCOS", "235", "T > T", "f16 f32 bf16"},
    {"ElewiseOperationSIN", "235", "T > T", "f16 f32 bf16"},
    {"ElewiseOperationNEG", "235", "T > T", "f16 bf16"},
    {"ElewiseOperationLOGICAL_NOT", "235", "i8 > i8", "i8"},
    {"ElewiseOperationADD", "235", "T T > T", "f16 f32 bf16 i32 i64"},
    {"ElewiseOperationMUL", "235", "T T > T", "f16 bf16"},
    {"ElewiseOperationREALDIV", "235", "T T > T", "f16 f32 bf16"},
    {"ElewiseOperationLOGICAL_AND", "235", "i8 i8 > i8", "i8"},
    {"ElewiseOperationLOGICAL_OR", "235", "i8 i8 > i8", "i8"},
    {"ElewiseOperationLESS", "235", "T T > i8", "f16 f32 bf16 i64"},
    {"ElewiseOperationGREATER", "235", "T T > i8", "f16 f32 bf16 i64"},
    {"ElewiseOperationEQUAL", "235", "T T > i8", "f16 f32 bf16"},
    {"ElewiseOperationSUB", "235", "T T > T", "f16 bf16 i64"},
    {"ElewiseOperationTANH", "235", "T > T", "f16 bf16"},
    {"ElewiseOperationQUANT_PER_CHANNEL", "23", "T T i8 > i8", "f16 bf16"},
    {"ElewiseOperationDYNAMIC_QUANT", "23", "T > i8 f32", "f16 bf16"},
    {"GatherOperation", "235", "T i32 > T", "f16 bf16 f32 i32 u32 i64"},
    {"GatherOperation", "235", "T i64 > T", "f16 bf16 f32 i32 u32 i64"},
    {"GatherOperation", "235", "T u32 > T", "f16 bf16 f32 i32 u32 i64"},
    {"ConcatOperation", "235", "T T > T", "f16 bf16"},
    {"SplitOperation2", "235", "T > T T", "f16 bf16 i64"},
    {"SplitOperation3", "235", "T > T T T", "f16 bf16"},
    {"SliceOperation", "235", "T > T", "f16 f32 bf16 i8 bool i32 u32"},
    {"TransposeOperation", "235", "T > T", "f16 bf16 i8 i32 i64"},
    {"SetValueOperation", "235", "T T >", "f16 f32 bf16 i32 i64"},
    {"RepeatOperation", "235", "T > T", "f16 bf16"},
    {"TransdataOperationToNd", "235", "T:nz > T", "f16 bf16"},
    {"TransdataOperationToNz", "235", "T > T:nz", "f16 bf16 i8"},
    {"SoftmaxOperation", "235", "T > T", "f16 f32 bf16"},
    {"SortOperation", "235", "T > T i32", "f16 bf16"},
    {"SortOperation", "25", "f32 > f32 i32", "f32"},
    {"ReduceOperationMAX", "235", "T > T", "i32 bf16"},
    {"ReduceOperationMIN", "235", "T > T", "i32 bf16"},
    {"ReduceOperationSUM", "235", "T > T", "f16 bf16"},
    {"AllReduceOperation", "235", "T > T", "f16 f32 i8 i16 i32 i64 bf16"},
    {"AllGatherOperation", "235", "T > T", "f16 f32 i8 i16 i32 i64 bf16"},
};

struct Type {
  const char* name;
  aclDataType dtype;
};

constexpr Type kTypes[] = {
    {"f32", ACL_FLOAT}, {"f16", ACL_FLOAT16}, {"bf16", ACL_BF16},  {"i8", ACL_INT8},    {"i16", ACL_INT16},
    {"i32", ACL_INT32}, {"i64", ACL_INT64},   {"u32", ACL_UINT32}, {"u64", ACL_UINT64}, {"bool", ACL_BOOL},
};

bool named(std::string_view name, aclDataType dtype) {
  for (const Type& type : kTypes) {
    if (name == type.name) return type.dtype == dtype;
  }
  return false;
}

// `word` of a pattern against a tensor, T standing for `type`.
bool fits(std::string_view word, std::string_view type, const TensorDesc& desc) {
  const bool nz = word.ends_with(":nz");
  if (nz) word.remove_suffix(3);
  if (desc.format != (nz ? ACL_FORMAT_FRACTAL_NZ : ACL_FORMAT_ND)) return false;
  return named(word == "T" ? type : word, desc.dtype);
}

bool side_fits(std::istringstream& words, std::string_view type, const std::vector<TensorDesc>& descs) {
  size_t at = 0;
  std::string word;
  while (words >> word && word != ">") {
    const bool repeated = word.ends_with("...");
    if (repeated) word.resize(word.size() - 3);
    do {
      if (at == descs.size()) return repeated;
      if (!fits(word, type, descs[at++])) return false;
    } while (repeated && at < descs.size());
  }
  return at == descs.size();
}

bool row_fits(const Row& row, const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out, bool bf16) {
  std::istringstream types(row.types);
  std::string type;
  while (types >> type) {
    if (type == "bf16" && !bf16) continue;
    std::istringstream words(row.pattern);
    if (side_fits(words, type, in) && side_fits(words, type, out)) return true;
  }
  return false;
}

std::string listing(const std::vector<TensorDesc>& descs) {
  std::string out;
  for (const TensorDesc& desc : descs) {
    out += (out.empty() ? "" : ", ") + std::string(text(desc.dtype));
    if (is_nz(desc)) out += " NZ";
    if (desc.format != ACL_FORMAT_ND && !is_nz(desc)) out += " format " + std::to_string(static_cast<int>(desc.format));
  }
  return out.empty() ? "nothing" : out;
}

char letter(Family family) { return "235?"[static_cast<int>(family)]; }

}  // namespace

Family family() {
  const std::string name = soc();
  if (name.starts_with("Ascend310P")) return Family::i310p;
  if (name.starts_with("Ascend950") || name.starts_with("Ascend910_95")) return Family::a5;
  // One of the first generation calls itself "Ascend910B" and nothing more; an A2 chip has a digit behind it.
  if (name == "Ascend910B") return Family::other;
  return name.starts_with("Ascend910B") || name.starts_with("Ascend910_93") ? Family::a2 : Family::other;
}

const char* family_name(Family family) {
  constexpr const char* kNames[] = {"910B", "310P", "950", "this chip"};
  return kNames[static_cast<int>(family)];
}

bool version_since(int major, int minor) {
  std::istringstream text(version());
  int has_major = 0, has_minor = 0;
  char dot = 0;
  text >> has_major >> dot >> has_minor;
  return has_major > major || (has_major == major && has_minor >= minor);
}

Status match_columns(const std::string& op, const std::string& key, const std::vector<TensorDesc>& in,
                     const std::vector<TensorDesc>& out) {
  const Family chip = family();
  bool known = false;
  for (const Row& row : kRows) {
    if (key != row.key || std::string_view(row.families).find(letter(chip)) == std::string_view::npos) continue;
    known = true;
    if (row_fits(row, in, out, chip != Family::i310p)) return NO_ERROR;
  }
  if (!known) {
    return reject(ERROR_INVALID_TENSOR_INI_MATCH, op, ": ", key, " does not exist on ", family_name(chip));
  }
  return reject(ERROR_INVALID_TENSOR_INI_MATCH, op, ": ", key, " has no column for ", listing(in), " -> ", listing(out),
                " on ", family_name(chip));
}

}  // namespace atb::sim
