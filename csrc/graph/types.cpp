// SPDX-License-Identifier: Apache-2.0
#include "graph/types.h"

#include "atb_core/error.h"

namespace atb_core {

DataType data_type_from_name(std::string_view short_name) {
  for (DataType type :
       {DataType::f32, DataType::f16, DataType::bf16, DataType::i8, DataType::i32, DataType::i64, DataType::b8}) {
    if (name(type) == short_name) return type;
  }
  fail("unknown element type '", short_name, "'");
}

}  // namespace atb_core
