// SPDX-License-Identifier: Apache-2.0
// Element types by the names that Python uses. This header is not public: its function has to be linked.
#pragma once

#include <string_view>

#include "atb_core/types.h"

namespace atb_core {

// Returns the type that name(DataType) gives this name. Throws Error if there is none.
DataType data_type_from_name(std::string_view short_name);

}  // namespace atb_core
