# SPDX-License-Identifier: Apache-2.0
"""Names that users write: distributions, backends, element types and the languages that build graphs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

#: Backends that need no device and support every element type.
HOST_BACKENDS = ("cpu", "reference")
BACKENDS = (*HOST_BACKENDS, "atb", "atb-sim")
#: Element types of models, by torch's names.
DTYPES = ("float32", "float16", "bfloat16")
#: Formats to which weights are quantised when a model is loaded.
QUANTIZATIONS = ("int8", "int4")
#: Element types of key/value caches beside the model's.
KV_CACHE_DTYPES = ("auto", "int8")
#: Languages that build a model's graph.
GRAPHS = ("python", "cpp")
#: Distributions of this project beside the core, which are folders of `plugins/` in its repository.
_OWN = (
    "ascend cli cpp-models embed gguf hub llama lora modelscope ops parallel profile pypi quant qwen2 qwen3 serve sim"
    " speculation testing"
)
OWN_PACKAGES = frozenset(f"atb-{name}" for name in _OWN.split())
# Those that need others than the core and the command.
_NEEDS = {"atb-serve": ("atb-embed",)}
#: What they bring to extension points: the package by a pattern of names, by the hook.
BROUGHT = {
    "atb_adapters": {".*": "atb-lora"},
    "atb_backends": {"atb|atb-sim": "atb-ascend"},
    "atb_checkpoint_formats": {".gguf": "atb-gguf"},
    "atb_checkpoint_sources": {
        r"pypi:.+": "atb-pypi",
        r"modelscope:.+|(https?://)?(www\.)?modelscope\.(cn|ai)/.+": "atb-modelscope",
        r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?(?<!\.gguf)|https?://(www\.)?(huggingface\.co|hf\.co)/.+": "atb-hub",
    },
    "atb_draft_methods": {"ngram": "atb-speculation"},
    "atb_functions": {
        "std|norm|copy_blocks|gating|group_topk|multi_latent_attention": "atb-ops",
        "dequantize|quantize_per_channel|quantize_per_token": "atb-quant",
    },
    "atb_graph_builders": {"cpp": "atb-cpp-models"},
    "atb_quant_schemes": {"awq|compressed-tensors|fp8|gptq|msmodelslim": "atb-quant"},
}


def pip_install(requirement: str) -> str:
    """Returns the command that installs a package, perhaps with extras; one of this project from the clone in use."""
    name, bracket, extras = requirement.partition("[")
    command = f"pip install {shlex.quote(requirement)}"
    if name not in OWN_PACKAGES:
        return command
    folders = Path(__file__).resolve().parents[1] / "plugins"
    folder = folders if (folders / name).is_dir() else "./plugins"
    # What is in no index stands before what needs it.
    wanted = (*_NEEDS.get(name, ()), f"{name}{bracket}{extras}")
    own = "pip install " + " ".join(shlex.quote(f"{folder}/{each}") for each in wanted)
    return own if folder is folders else f"{command} (in a clone of the repository: {own})"


def command(line: str) -> str:
    """Returns `atb LINE` for a message, with the package that has the command where it is not installed."""
    return f"`atb {line}`" + ("" if find_spec("atb_cli") else " (of the package atb-cli)")


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """Returns a question with the name that is most like a misspelt one, or a sentence for one that is like none."""
    close = get_close_matches(name, names, 1)
    return f"Did you mean {close[0]}?" if close else otherwise


def normalized_name(name: str) -> str:
    """Returns the normal form of a distribution's name: `Atb_Foo`, `atb.foo` and `atb-foo` are all `atb-foo`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
