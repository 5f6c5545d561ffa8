# SPDX-License-Identifier: Apache-2.0
"""A command line that is run in this process, and a stand-in for a loaded model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runner.templates import CHATML
from runner.tiny_tokenizers import byte_level

from atb_cli import main, options
from atb_cli.plugin_commands import plugin_command
from atb_core.errors import AtbError
from atb_core.plugins.once import forget
from atb_core.runner.outputs import CompletionOutput, FinishReason, RequestMetrics, RequestOutput, StreamChunk
from atb_core.runner.sampling_params import SamplingParams


@dataclass
class Result:
    """Holds the output of a command and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture
def atb(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `atb` with the given arguments."""

    def run(*args: str) -> Result:
        status = main(args)
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


@dataclass
class FakeRunner:
    """Answers every request with `pieces`; raises an exception that stands among them."""

    pieces: list[Any] = field(default_factory=lambda: ["Par", "is", "."])
    requests: list[Any] = field(default_factory=list)
    sampling: list[Any] = field(default_factory=list)
    loaded_with: dict[str, Any] = field(default_factory=dict)
    chat_template_kwargs: list[Any] = field(default_factory=list)
    adapter_ids: list[Any] = field(default_factory=list)
    defaults: SamplingParams = field(default_factory=SamplingParams)
    finish_reason: FinishReason = "stop"
    tokenizer: Any = None
    max_model_len: int = 1000
    backend: str = "cpu"
    config: Any = field(default_factory=lambda: SimpleNamespace(torch_dtype="float32"))

    def get_default_sampling_params(self) -> SamplingParams:
        return self.defaults

    def generate(
        self, prompts: list[Any], sampling_params: Any, *, stream: bool, adapter_ids: Any = None
    ) -> Iterator[StreamChunk]:
        self.adapter_ids.append(adapter_ids)
        [prompt] = prompts
        assert isinstance(prompt, str)
        return self._answer(prompt, sampling_params, stream)

    def chat(
        self,
        messages: list[Any],
        sampling_params: Any,
        *,
        stream: bool,
        chat_template_kwargs: Any = None,
        adapter_ids: Any = None,
    ) -> Iterator[StreamChunk]:
        self.adapter_ids.append(adapter_ids)
        self.chat_template_kwargs.append(chat_template_kwargs)
        return self._answer(messages, sampling_params, stream)

    def _answer(self, request: Any, sampling: Any, stream: bool) -> Iterator[StreamChunk]:
        """As the real one: what is refused is refused by the call, and not when its result is read."""
        assert stream
        self.requests.append(request)
        self.sampling.append(sampling)
        if isinstance(self.pieces[0], AtbError):
            raise self.pieces[0]
        return self._chunks()

    def _chunks(self) -> Iterator[StreamChunk]:
        said = ""
        for token, piece in enumerate(self.pieces):
            if isinstance(piece, BaseException):
                raise piece
            said += piece
            last = token == len(self.pieces) - 1
            output = self._output(said, token + 1) if last else None
            yield StreamChunk(0, 0, piece, token, self.finish_reason if last else None, output=output)

    def _output(self, text: str, tokens: int) -> RequestOutput:
        metrics = RequestMetrics(time_to_first_token=0.5, decode_time=2.0, total_time=2.5)
        completion = CompletionOutput(0, text, list(range(tokens)), finish_reason=self.finish_reason)
        return RequestOutput("0", "prompt", [7, 8], [completion], metrics=metrics, num_cached_tokens=1)


@pytest.fixture(autouse=True)
def nothing_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands see an empty stdin, and not pytest's, which cannot be read."""
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """The runner that `atb run` and `atb chat` get instead of a loaded model."""
    fake = FakeRunner()

    def load(model: str, **loading: Any) -> FakeRunner:
        fake.loaded_with = {"model": model, **loading}
        return fake

    # Commands of other packages take `load_runner` when they are first imported, and would keep this one.
    plugin_command("profile", frozenset())
    monkeypatch.setattr(options, "load_runner", load)
    return fake


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `tiny_family`, whose family is installed while the test runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import tiny_family

    tiny_family.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget()
    yield tiny_family
    forget()
    del sys.modules["tiny_family"]


@pytest.fixture
def chat_model(tiny: Any, tmp_path: Path) -> str:
    """The directory of a tiny random checkpoint with a tokenizer and a chat template; its answers are noise."""
    tokenizer = byte_level()
    vocab = tokenizer.get_vocab_size()
    directory = tiny.write_checkpoint(tmp_path / "chat-model", tiny.weights(vocab), vocab_size=vocab)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(directory)


@pytest.fixture
def tiny_model(tiny: Any, tmp_path: Path) -> str:
    """The directory of a tiny random checkpoint."""
    return str(tiny.write_checkpoint(tmp_path / "model", tiny.weights()))
