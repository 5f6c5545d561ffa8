// SPDX-License-Identifier: Apache-2.0
// Element types by the names that Python uses. Not among the public headers: it has to be linked.
#pragma once

#include <string_view>

#include "atb_core/types.h"

namespace atb_core {

// The type of which name(DataType) is the name. Throws Error when there is none.
DataType data_type_from_name(std::string_view short_name);

}  // namespace atb_core
