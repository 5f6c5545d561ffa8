// SPDX-License-Identifier: Apache-2.0
// The table of op signatures and the table of the CPU engine's kernels contain the same ops.
#include <algorithm>

#include "check.h"
#include "cpu/engine/op.h"
#include "graph/op.h"

using namespace atb_core;

TEST(every_op_of_the_graph_has_a_kernel_and_every_kernel_a_signature) {
  CHECK(op_names() == cpu_op_names());
  const std::vector<std::string> names = op_names();
  CHECK(std::is_sorted(names.begin(), names.end()));
}

TEST(an_op_that_only_the_graph_knows_is_refused_by_name) {
  CHECK(find_op("Missing") == nullptr);
  CHECK_THROWS(cpu_op("Missing"), "the cpu engine has no kernel for the op Missing");
}

TEST(writes_refer_to_inputs_that_every_node_has) {
  for (const std::string& name : op_names()) {
    const OpSignature* op = find_op(name);
    CHECK(op->name == name);
    CHECK(op->inputs.least <= op->inputs.most && op->outputs.least <= op->outputs.most);
    for (int index : op->writes) CHECK(index >= 0 && index < op->inputs.least);
  }
}

TEST_MAIN()
