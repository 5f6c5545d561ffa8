# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as Hugging Face's libraries write them: a directory with JSON files and safetensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import Checkpoint, TokenizerParts, WeightLoader, end_token_ids
from atb_core.checkpoint.guarded_tokenizer import TOKEN_FLAGS
from atb_core.checkpoint.quant_schemes import declared_quantization, open_quantized
from atb_core.checkpoint.tokenizer_json import library_errors, tokenizer_from_json
from atb_core.distributions import needed_package
from atb_core.errors import ConfigError, TokenizerError, WeightsError
from atb_core.files import read_file, read_json, read_text
from atb_core.graph.dtype import DataType
from atb_core.names import DTYPES

if TYPE_CHECKING:
    import tokenizers

    from atb_core.checkpoint.safetensors import SafetensorsLoader

_MAX_TEMPLATE_BYTES = 1 << 20
_MAX_TEMPLATES = 64
# The largest in use has 35 MB.
_MAX_TOKENIZER_BYTES = 256 << 20
_SLOW_FORMATS = ("tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
# The order decides about the ids of tokens that no file numbers.
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class DirectoryCheckpoint(Checkpoint):
    """A directory with `config.json`, `tokenizer.json` and safetensors, or one safetensors file of it.

    Attributes:
        directory: the place of the files that are not weights.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.directory = path if path.is_dir() else path.parent

    @cached_property
    def _config(self) -> dict[str, Any]:
        config = self.read_config()
        if config is None:
            raise ConfigError(
                f"There is no config.json in {self.directory}",
                hint="A model directory holds config.json, tokenizer.json and *.safetensors; or pass a .gguf file.",
            )
        if config.get("dtype") is None and config.get("torch_dtype") is None and (stored := self._stored_dtype()):
            return {**config, "torch_dtype": stored}
        return config

    def _stored_dtype(self) -> str | None:
        """Returns the floating type of most of the weights, `None` without any."""
        if not self.path.is_file() and not any(self.path.glob("*.safetensors")):
            return None
        sizes: Counter[str] = Counter()
        with self._stored() as loader:
            for name in loader.names():
                # Other checks name types that are not supported.
                with suppress(WeightsError):
                    if (dtype := loader.dtype(name)).is_float:
                        sizes[dtype.short] += loader.nbytes(name)
        return sizes.most_common(1)[0][0] if sizes else None

    def read_config(self) -> dict[str, Any] | None:
        """Reads the configuration; returns `None` if there is no file of it."""
        return read_json(self.directory / "config.json", ConfigError)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def generation_config(self) -> dict[str, Any]:
        return read_json(self.directory / "generation_config.json", ConfigError) or {}

    def tokenizer_parts(self) -> TokenizerParts:
        return read_tokenizer_files(self.directory)

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        stored = self._stored()
        try:
            declared = (
                declared_quantization(self.directory, self._config)
                if (self.directory / "config.json").exists()
                else None
            )
            if declared is None:
                return stored
            named = str(self._config.get("torch_dtype") or self._config.get("dtype")).removeprefix("torch.")
            usual = DataType.from_short(named) if named in DTYPES else DataType.BF16
            return open_quantized(stored, *declared, dtype or usual)
        except BaseException:
            stored.close()
            raise

    def _stored(self) -> SafetensorsLoader:
        from atb_core.checkpoint.safetensors import open_safetensors

        return open_safetensors(self.path)

    def quantization(self) -> str | None:
        declared = declared_quantization(self.directory, self._config)
        return declared[0] if declared else None

    def stored_types(self) -> Counter[str]:
        with self._stored() as loader:
            return loader.stored_types()


def read_tokenizer_files(directory: Path) -> TokenizerParts:
    """Reads `tokenizer.json`, or an older format that transformers converts, and the files beside it.

    Raises:
        TokenizerError: there is no tokenizer, or it is damaged or of an unsupported kind.
    """
    config, special_map = (_read(directory / name) for name in ("tokenizer_config.json", "special_tokens_map.json"))
    declared = config.get("added_tokens_decoder")
    # The map is older than `added_tokens_decoder` and counts where that is missing, as in Hugging Face.
    config = config if "added_tokens_decoder" in config else {**config, **special_map}
    special_tokens = _special_tokens(config)
    backend = _load_backend(directory)
    with library_errors(f"{directory} cannot be read"):
        _add_tokens(backend, directory, declared or _read(directory / "added_tokens.json"), special_tokens, config)
    backend.encode_special_tokens = config.get("split_special_tokens") is True
    texts = {name: _text_of(value) for name, value in special_tokens.items()}
    eos_token_ids = end_token_ids(*(_read(directory / name) for name in ("generation_config.json", "config.json")))
    own = backend.token_to_id(texts.get("eos_token", ""))
    return TokenizerParts(
        backend=backend,
        eos_token_ids=eos_token_ids if own is None else eos_token_ids | {own},
        special_tokens=texts,
        chat_templates=_template_files(directory) or _named_templates(config.get("chat_template")),
    )


def _load_backend(directory: Path) -> tokenizers.Tokenizer:
    path = directory / "tokenizer.json"
    data = read_file(path, _MAX_TOKENIZER_BYTES, TokenizerError)
    if data is not None:
        return tokenizer_from_json(data, str(path))
    slow = [name for name in _SLOW_FORMATS if (directory / name).exists()]
    if not slow:
        raise TokenizerError(
            f"There is no tokenizer in {directory}",
            hint="Copy tokenizer.json (and tokenizer_config.json) of the original model into it; from Python, "
            "load_tokenizer=False takes token ids.",
        )
    for file in directory.iterdir():
        # transformers reads what it finds, without a limit.
        if file.suffix in (".json", ".txt", ".model", ".jinja"):
            read_file(file, _MAX_TOKENIZER_BYTES, TokenizerError)
    package = needed_package("atb_ops", f"{directory} has its tokenizer only as {slow[0]}: to convert it needs")
    return tokenizer_from_json(package.converted_tokenizer(directory, slow[0]), str(directory / slow[0]))


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, TokenizerError) or {}


def _text_of(token: Any) -> str:
    """Returns the text of a token, which is written alone or in an object with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _special_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the named special tokens, the model's own names last."""
    extra = config.get("extra_special_tokens")
    extra = extra if isinstance(extra, dict) else {}
    own = [name for name in config if name.endswith("_token") and name not in _SPECIAL_NAMES]
    named = {name: config.get(name) for name in (*_SPECIAL_NAMES, *own)} | extra
    return {name: value for name, value in named.items() if _text_of(value)}


def _add_tokens(
    backend: tokenizers.Tokenizer,
    directory: Path,
    declared: object,
    named: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Adds the tokens that only the files beside `tokenizer.json` name.

    `declared` has tokens by their ids, as `added_tokens_decoder`, or ids by texts, as `added_tokens.json`; `named` has
    special tokens by their names, and `config` lists further ones. `backend` numbers new ones in their order.
    """
    import tokenizers

    lists = [config.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
    listed = [token for each in lists if isinstance(each, list) for token in each]
    special_texts = {_text_of(token) for token in (*named.values(), *listed)}
    by_id: dict[int, Any] = {}
    if not isinstance(declared, dict):
        raise TokenizerError(f"{directory}: added_tokens_decoder is {str(declared)[:60]}, not an object with ids")
    for key, value in declared.items():
        number, token = (value, key) if type(value) is int else (key, value)
        if not _text_of(token) or not str(number).isdecimal() or int(number) in by_id:
            raise TokenizerError(f"{directory} declares an added token as {str({key: value})[:200]}")
        by_id[int(number)] = token
    new = {number: _text_of(token) for number, token in by_id.items() if backend.token_to_id(_text_of(token)) is None}
    known = backend.get_added_tokens_decoder().values()
    flags = {token.content: {flag: getattr(token, flag) for flag in TOKEN_FLAGS} for token in known}
    for number in sorted(by_id):
        text = _text_of(by_id[number])
        own = flags.pop(text, {})
        flags[text] = {"normalized": text not in special_texts, **own, **_flags_of(by_id[number])}
        # What tokenizer.json leaves out of decoded text stays left out, as in Hugging Face.
        flags[text]["special"] = flags[text].get("special", False) or own.get("special", False)
    # As in Hugging Face, a name makes a token special, a list only one that is new and says nothing else.
    for token in filter(_text_of, named.values()):
        flags.setdefault(_text_of(token), {"normalized": False, **_flags_of(token)})["special"] = True
    for token in filter(_text_of, listed):
        flags.setdefault(_text_of(token), {"normalized": False, "special": isinstance(token, str), **_flags_of(token)})
    backend.add_tokens([tokenizers.AddedToken(text, **own) for text, own in flags.items()])
    for number, text in new.items():
        if (got := backend.token_to_id(text)) != number:
            raise TokenizerError(
                f"{directory} declares the token {text[:60]!r} as {number}, but it follows the others as {got}",
                hint="Put all tokens into tokenizer.json, or fetch the model's original files.",
            )


def _flags_of(token: Any) -> dict[str, bool]:
    return {key: token[key] is True for key in TOKEN_FLAGS if key in token} if isinstance(token, dict) else {}


def _named_templates(listed: object) -> dict[str, str]:
    """Returns the templates of `tokenizer_config.json` by name: one, or an object or a list of several."""
    if isinstance(listed, list):
        listed = {str(item.get("name")): item.get("template") for item in listed if isinstance(item, dict)}
    named = listed if isinstance(listed, dict) else {"default": listed}
    return {name: template for name, template in named.items() if isinstance(template, str)}


def _template_files(directory: Path) -> dict[str, str]:
    """Returns the templates in files of their own by name; with any, those of `tokenizer_config.json` do not count."""
    further = sorted((directory / "additional_chat_templates").glob("*.jinja"))
    if len(further) > _MAX_TEMPLATES:
        raise TokenizerError(f"{directory} has {len(further)} chat templates, the limit is {_MAX_TEMPLATES}")
    files = {"default": directory / "chat_template.jinja", **{path.stem: path for path in further}}
    texts = {name: read_text(path, _MAX_TEMPLATE_BYTES, TokenizerError) for name, path in files.items()}
    return {name: text for name, text in texts.items() if text is not None}
