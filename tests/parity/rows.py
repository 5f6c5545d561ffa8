# SPDX-License-Identifier: Apache-2.0
"""The names of ATB-Models that code written for it uses, and where each is called."""

from __future__ import annotations

_FUNCTIONS = "tests/parity/test_functions.py::test_"
_GRAPH = "tests/parity/test_graph.py::test_"
_PORTED = "tests/models/test_atb_models_families.py::test_"
_SKETCH = "tests/models/test_guide_sketches.py::test_the_guides_sketches_make_a_model_that_answers_like_hugging_faces"
_NORM_QUANT = "plugins/atb-quant/tests/test_norm_quant.py::test_"
_CPP = "plugins/atb-cpp-models/tests/test_"
#: What begins the value of a row that differs: a cell of the first column of "What is different" in the guide.
GUIDE = "guide: "

#: Functions that `CALLS` of `test_functions.py` has under names that begin so, and those that it refuses.
FUNCTIONS = (
    "linear", "grouped_matmul", "rms_norm", "rope", "paged_attention", "activation RELU", "activation GELU",
    "activation FAST_GELU", "activation SWISH", "activation LOG", "activation SWIGLU", "activation SIGMOID", "softmax",
    "gather", "sort", "argsort", "split into parts", "split by sizes", "cat", "cos", "sin", "neg", "logical_not",
    "logical_or", "logical_and", "equal", "amax", "amin", "sum_", "std", "norm", "moe_topk_softmax", "moe_init_routing",
    "moe_token_unpermute", "gating", "group_topk", "quantize_per_token", "quantize_per_channel", "linear of int8",
    "dequantize", "paged_attention of prompts", "paged_attention NORM with is_triu_mask",
    "paged_attention NORM_COMPRESS", "paged_attention ALIBI", "paged_attention of tokens",
    "paged_attention of tokens NORM", "paged_attention of tokens ALIBI", "paged_attention SPEC", "Tensor + - > <",
    "Tensor * /", "Tensor ~", "Tensor []", "Tensor.to", "Tensor.permute", "Tensor.repeat", "Tensor.reshape",
)  # fmt: skip
REFUSED = (
    "paged_attention slopes", "paged_attention mla_v_head_size", "paged_attention ALIBI_COMPRESS",
    "paged_attention ALIBI_COMPRESS_SQRT", "paged_attention ALIBI_COMPRESS_LEFT_ALIGN",
)  # fmt: skip
#: Further rows: the test that calls what the row names, or what the guide says of it.
TABLE: dict[str, str] = {
    # Functions, tensors and module paths.
    "reshape_and_cache": _FUNCTIONS + "caches_are_written_in_place",
    "copy_blocks": _FUNCTIONS + "caches_are_written_in_place",
    "multi_latent_attention": _FUNCTIONS + "latent_attention_takes_the_keywords_and_the_names_of_its_modes",
    "nn.functional.math": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.functional.index": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.functional.tensor_manipulation": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.functional.position_embedding": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.functional.block_copy": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.functional.attention.paged_attention": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "nn.quantized": "tests/nn/test_names.py::test_module_paths_lead_to_the_same_names",
    "Tensor.write_inplace": (
        "tests/nn/test_names.py::test_a_value_that_is_written_in_place_may_be_marked_under_the_name_of_its_target"
    ),
    "Tensor ==": GUIDE + "a tensor has no shape or dtype and is compared by name",
    "Tensor.view_tensor": GUIDE + "an unnamed graph output is wired by its name",
    "Tensor.view_father": GUIDE + "an unnamed graph output is wired by its name",
    "slices with an open end": GUIDE + "a slice with a negative or open end takes the whole dimension",
    "DataType": "tests/nn/test_names.py::test_dtypes_have_the_names_of_acl",
    "utils.quantize.pack_type.DataType": "tests/nn/test_names.py::test_dtypes_have_the_names_of_acl",
    "types of argsort and of experts' weights": GUIDE + "`argsort` int64",
    "more rows of tables": GUIDE + "rotary tables may have more rows",
    "a bias of one row": GUIDE + "a `bias` of `linear` may be `[1, n]`",
    # Quantisation.
    "W8A8": "plugins/atb-quant/tests/test_integers.py::test_logits_are_those_of_a_model_that_rounds_its_activations",
    "W8A8_DYNAMIC": "plugins/atb-quant/tests/test_integers.py::test_logits_are_those_of_a_model_that_rounds_its_act",
    "W8A8_MIX": GUIDE + "`W8A8_MIX` has one scale for all rows in decode",
    "QuantTypeV3": "plugins/atb-quant/tests/test_integers.py::test_the_names_of_the_original_lead_to_the_methods",
    "InferenceMode": _GRAPH + "linear_layers_take_the_mode_of_a_step",
    "LINEAR_METHOD_ROUTER": "plugins/atb-quant/tests/test_integers.py::test_the_names_of_the_original_lead_to_the_m",
    "quant_type, pack_type": GUIDE + "C++ models have quantised weights",
    # Modules, parameters, networks, engines.
    "Module": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "ModuleList": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "ModuleDict": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "add_aliases": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "getattr_by_alias": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "modules.Linear": _FUNCTIONS + "primitive_modules_compute",
    "modules.RmsNorm": _FUNCTIONS + "primitive_modules_compute",
    "Parameter": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "Parameter.register_processor": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "Parameter.get_tensor": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "Parameter.data": GUIDE + "assigning `.data` of a parameter runs its processor",
    "get_default_net": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "Network": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "mark_output": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "cut": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "cut_step": GUIDE + "the graph is cut every eight nodes by default",
    "push_node": GUIDE + "one network for the process",
    "build_engine(del_fpass_keys)": _GRAPH + "fusions_run_for_tensors_without_shapes_and_keep_the_values",
    "Engine.set_weights": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "weights that the network does not have": GUIDE + "`set_weights` ignores names that the network does not have",
    "Engine.set_kv_caches": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "Engine.forward": _GRAPH + "a_module_is_recorded_into_the_default_network_built_and_run",
    "bind_map": GUIDE + "the third argument of `forward` is `bind_map`",
    # Fusions.
    "AddRmsNormPass": _GRAPH + "fusions_run_for_tensors_without_shapes_and_keep_the_values",
    "SwigluWeightPackPass": _GRAPH + "fusions_run_for_tensors_without_shapes_and_keep_the_values",
    "W8A8LinearWithBiasDequantPerTensorPass": _GRAPH + "products_of_integers_and_their_scales_become_one_node",
    "W8A8LinearDequantPerTokenPass": _GRAPH + "products_of_integers_and_their_scales_become_one_node",
    "W8A8LinearDequantPerTokenWithBiasPass": _GRAPH + "products_of_integers_and_their_scales_become_one_node",
    "SwigluWeightNoPackPass": GUIDE + "fusions for operations of aclnn",
    "AddNormQuantPerTensorPass": GUIDE + "fusions for operations of aclnn",
    "AddNormQuantPerTokenPass": GUIDE + "fusions for operations of aclnn",
    "AddNormWithBiasQuantPerTensorPass": _NORM_QUANT + "the_chain_is_one_node_that_rounds_once",
    "NormWithBiasQuantPerTensorPass": _NORM_QUANT + "the_chain_is_one_node_that_rounds_once",
    "SwigluWeightPackQuantPerTokenPass": GUIDE + "fusions for operations of aclnn",
    "SwigluWeightPackQuantPerChannelPass": GUIDE + "fusions for operations of aclnn",
    "SwigluWeightNoPackQuantPerTokenPass": GUIDE + "fusions for operations of aclnn",
    "SwigluWeightNoPackQuantPerChannelPass": GUIDE + "fusions for operations of aclnn",
    "MatmulAllReducePass": (
        "plugins/atb-parallel/tests/test_on_ascend.py::test_products_and_sums_by_lccl_are_one_operation_for_powers_of_two"
    ),
    "FusionPassManager": GUIDE + "`FusionPassManager`",
    # Groups.
    "init_process_group": "plugins/atb-ops/tests/test_groups.py::test_a_group_of_one_process_has_a_handle_for_coll",
    "is_initialized": "plugins/atb-ops/tests/test_groups.py::test_a_group_of_one_process_has_a_handle_for_coll",
    "new_group": _GRAPH + "groups_have_the_originals_keywords",
    "get_backend": "plugins/atb-ops/tests/test_groups.py::test_a_group_of_one_process_has_a_handle_for_collectives",
    "all_reduce": _GRAPH + "groups_have_the_originals_keywords",
    "all_gather": _GRAPH + "groups_have_the_originals_keywords",
    "AllReduceType": _GRAPH + "groups_have_the_originals_keywords",
    "Mapping": _GRAPH + "groups_have_the_originals_keywords",
    "world_size": GUIDE + "`world_size > 1` runs tensor parallel",
    # Layers.
    "BaseLinear": _GRAPH + "linear_layers_take_the_mode_of_a_step",
    "ColumnParallelLinear": _GRAPH + "linear_layers_take_the_mode_of_a_step",
    "RowParallelLinear": _GRAPH + "linear_layers_take_the_mode_of_a_step",
    "ReplicatedLinear": _GRAPH + "linear_layers_take_the_mode_of_a_step",
    "enable_lora": GUIDE + "layers take `inference_mode`, `enable_lora`, `group_list`",
    "MergedColumnParallelLinear": _GRAPH + "packed_layers_give_a_list_with_an_output_for_each",
    "Attention": _GRAPH + "an_attention_layer_has_the_attributes_of_the_original",
    "Attention.forward": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "Mlp": _GRAPH + "feed_forward_norm_and_embedding_take_what_the_original_gives_them",
    "RmsNorm": _GRAPH + "feed_forward_norm_and_embedding_take_what_the_original_gives_them",
    "RmsNorm of anti-outlier checkpoints": (
        "plugins/atb-quant/tests/test_integers.py::test_a_shift_against_outliers_is_rounded_with_the_activations"
    ),
    "ParallelEmbedding": _GRAPH + "feed_forward_norm_and_embedding_take_what_the_original_gives_them",
    "Moe": _GRAPH + "a_mixture_of_experts_routes_and_sums",
    "FusedExperts": _GRAPH + "a_mixture_of_experts_routes_and_sums",
    "layers.base_layer.BaseLayer": GUIDE + "constructing a layer reads its weights from the disk",
    "weight loaders of layers": GUIDE + "constructing a layer reads its weights from the disk",
    "LoraManager": "plugins/atb-lora/tests/test_lora.py::test_running_requests_keep_the_adapter_that_they_began_with",
    # Models, features, runner.
    "FlashCausalLMV3": _SKETCH,
    "torch_to_mindie_graph": _SKETCH,
    "_update_model_inputs": GUIDE + "`_update_model_inputs` in the guide returns a set",
    "modeling_python.BaseLayer": _SKETCH,
    "modeling_python.BaseModel": _SKETCH,
    "MindIELLMConfig": _PORTED + "a_models_status_and_a_features_name_may_be_what_they_are_there",
    "ModelStatus": _PORTED + "a_models_status_and_a_features_name_may_be_what_they_are_there",
    "BaseConfig": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "RopeScaling": "tests/models/test_config.py::test_rope_parameters_and_rope_scaling_mean_the_same",
    "BaseRouter": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "BaseRouter.get_tokenizer": _PORTED + "its_tokenizer_and_its_input_builder_make_the_prompt",
    "safe_get_tokenizer_from_pretrained": _PORTED + "its_tokenizer_and_its_input_builder_make_the_prompt",
    "InputBuilder": _PORTED + "its_tokenizer_and_its_input_builder_make_the_prompt",
    "tool_call_parser": _PORTED + "its_parser_for_tool_calls_is_asked_for_by_name",
    "postprocessor and parsers": _PORTED + "methods_that_nothing_calls_are_refused",
    "SafetensorFileLoader": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "FeatureDecorator": _PORTED + "a_models_status_and_a_features_name_may_be_what_they_are_there",
    "SingleLoraDecorator": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "MultiLoraDecorator": _PORTED + "its_greedy_tokens_are_hugging_faces",
    "input_metadata": _PORTED + "a_step_is_a_mapping_of_its_arguments",
    "EngineWrapper": GUIDE + "all combinations of features are built at the first call",
    "ModelRunner": _PORTED + "its_greedy_tokens_are_hugging_faces",
    # C++.
    "ModelTorch": _CPP + "model_torch.py::test_both_ways_to_build_a_graph_give_the_same_bits",
    "set_param, set_weight, set_kv_cache": _CPP + "model_torch.py::test_both_ways_to_build_a_graph_give_the_same_bits",
    "execute, execute_out": _CPP + "model_torch.py::test_both_ways_to_build_a_graph_give_the_same_bits",
    "qwen_PAModel": _CPP + "registered.py::test_the_names_of_atb_models_are_the_same_models",
    "qwen_QwenDecoderModel": _CPP + "registered.py::test_the_names_of_atb_models_are_the_same_models",
    "llama_LlamaDecoderModel": _CPP + "registered.py::test_the_names_of_atb_models_are_the_same_models",
    "REGISTER_MODEL": _CPP + "libraries.py::test_the_sample_runs_and_is_loaded_once",
    "set_format_to_nz": GUIDE + "`set_format_to_nz(id)` for each weight",
    "ATB_OPERATION_EXECUTE_ASYNC": GUIDE + "`ATB_OPERATION_EXECUTE_ASYNC` 0, 1 or 2",
}
