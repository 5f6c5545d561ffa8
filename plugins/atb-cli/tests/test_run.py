# SPDX-License-Identifier: Apache-2.0
"""`atb run`: where the prompt comes from, what is sent to the model, what is printed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atb_cli import main
from atb_core.errors import AtbError
from atb_core.runner.sampling_params import SamplingParams

Run = Callable[..., Any]


def test_the_answer_is_streamed_and_ends_its_line(atb: Run, runner: Any) -> None:
    result = atb("run", "m", "capital of France?")
    assert (result.status, result.out, result.err) == (0, "Paris.\n", "")


def test_a_prompt_is_a_user_message_of_a_chat(atb: Run, runner: Any) -> None:
    atb("run", "m", "hello", "--system", "Be brief.")
    system, user = runner.requests[0]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "hello"}


def test_raw_sends_the_prompt_as_it_is(atb: Run, runner: Any) -> None:
    atb("run", "m", " once upon", "--raw")
    assert runner.requests == [" once upon"]


@pytest.mark.parametrize("args", [[], ["-"]], ids=["no prompt", "dash"])
def test_the_prompt_can_come_from_stdin(
    atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    atb("run", "m", *args, "--raw")
    assert runner.requests == ["from a pipe\n"]


@pytest.mark.parametrize(
    ("piped", "sent"), [("other\n", "other\n\nhello"), ("a\n\nb", "a\n\nb\n\nhello"), (" \n", "hello"), ("", "hello")]
)
def test_text_from_stdin_goes_before_the_prompt(
    atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch, piped: str, sent: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))
    atb("run", "m", "hello", "--raw")
    assert runner.requests == [sent]


def test_a_terminal_is_not_read_when_there_is_a_prompt(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO("typed later")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    atb("run", "m", "hello", "--raw")
    assert runner.requests == ["hello"]
    assert stdin.read() == "typed later"


def test_an_empty_stdin_is_a_usage_error(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    result = atb("run", "m")
    assert result.status == 2
    assert "stdin is empty" in result.err


def test_sampling_options_reach_the_runner(atb: Run, runner: Any) -> None:
    atb(
        "run", "m", "p", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "20", "--min-p", "0.05",
        "--repetition-penalty", "1.1", "--seed", "3", "--max-tokens", "9", "--stop", "a", "--stop", "b",
        "--ignore-eos", "--min-tokens", "2", "--presence-penalty", "0.5", "--frequency-penalty", "-0.25",
        "--logit-bias", "4=1.5", "--logit-bias", "5=-100", "--stop-token-id", "6", "--keep-special-tokens",
    )  # fmt: skip
    sampling = runner.sampling[0]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.7, 0.9, 20, 0.05)
    assert (sampling.repetition_penalty, sampling.seed, sampling.max_tokens) == (1.1, 3, 9)
    assert (list(sampling.stop), sampling.ignore_eos) == (["a", "b"], True)
    assert (sampling.min_tokens, sampling.presence_penalty, sampling.frequency_penalty) == (2, 0.5, -0.25)
    assert (sampling.logit_bias, sampling.stop_token_ids) == ({4: 1.5, 5: -100.0}, (6,))
    assert sampling.skip_special_tokens is False


def test_several_answers_are_sampled(atb: Run, runner: Any) -> None:
    atb("run", "m", "p", "--json", "--n", "3")
    assert (runner.sampling[0].n, runner.sampling[0].effective_temperature) == (3, 1.0)


def test_without_sampling_options_the_models_defaults_count(atb: Run, runner: Any) -> None:
    runner.defaults = SamplingParams(temperature=0.6, top_k=20, max_tokens=99)
    atb("run", "m", "p")
    assert runner.sampling[0] == runner.defaults
    atb("run", "m", "p", "--top-k", "5", "--max-tokens", "3")
    assert runner.sampling[1] == SamplingParams(temperature=0.6, top_k=5, max_tokens=3)
    atb("run", "m", "p", "--temperature", "0")
    assert runner.sampling[2].greedy


def test_a_sampling_option_without_a_temperature_samples_at_one(atb: Run, runner: Any) -> None:
    atb("run", "m", "p", "--top-p", "0.9")
    assert runner.sampling[0].effective_temperature == 1.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--logit-bias", "a=1"], "--logit-bias a=1: write ID=BIAS"),
        (["--logit-bias", "7=200"], "logit_bias[7] must be in [-100, 100]"),
        (["--min-tokens", "5", "--max-tokens", "4"], "min_tokens=5 is more than max_tokens=4"),
        (["--logprobs", "3"], "--logprobs needs --json"),
        (["--n", "2"], "--n needs --json"),
        (["--n", "2", "--json", "--temperature", "0"], "greedy decoding gives the same completion each time"),
    ],
)
def test_wrong_sampling_options_are_refused_before_loading(
    atb: Run, runner: Any, args: list[str], message: str
) -> None:
    result = atb("run", "m", "p", *args)
    assert result.status != 0
    assert message in result.err
    assert not runner.loaded_with


def test_an_answer_that_was_cut_is_remarked_on(atb: Run, runner: Any) -> None:
    runner.finish_reason = "length"
    result = atb("run", "m", "p", "--max-tokens", "3")
    assert (result.out, result.err) == ("Paris.\n", "(stopped at --max-tokens 3)\n")
    assert "(stopped: the context is full)" in atb("run", "m", "p").err


def test_loading_options_reach_the_runner(atb: Run, runner: Any) -> None:
    atb(
        "run",
        "m",
        "p",
        "--backend",
        "cpu",
        "--graph",
        "cpp",
        "--dtype",
        "float32",
        "--quantization",
        "int8",
        "--num-threads",
        "1",
        "--max-model-len",
        "64",
        "--kv-cache-memory-bytes",
        "4096",
        "--generation-config",
        "none",
        "--feature",
        "lora",
        "--lora",
        "sql=adapters/sql",
        "--max-loras",
        "2",
        "--max-lora-rank",
        "16",
        "--tp",
        "2",
        "--speculate",
        "--cache-packed",
        "--kv-cache-dtype",
        "int8",
    )
    assert runner.loaded_with == {
        "model": "m", "backend": "cpu", "graph": "cpp", "dtype": "float32", "num_threads": 1, "max_model_len": 64,
        "kv_cache_memory_bytes": 4096, "generation_config": "none", "features": ("lora",), "chat_template": None,
        "speculative_config": {"method": "ngram"}, "lora_modules": {"sql": "adapters/sql"}, "max_loras": 2,
        "max_lora_rank": 16, "quantization": "int8", "tensor_parallel_size": 2, "cache_packed": True,
        "kv_cache_dtype": "int8",
    }  # fmt: skip


def test_json_is_one_object_and_nothing_else(atb: Run, runner: Any) -> None:
    record = json.loads(atb("run", "m", "p", "--json").out)
    (completion,) = record["outputs"]
    assert completion["text"] == "Paris."
    assert completion["token_ids"] == [0, 1, 2]
    assert completion["finish_reason"] == "stop"


def test_stats_go_to_stderr(atb: Run, runner: Any) -> None:
    result = atb("run", "m", "p", "--stats")
    assert result.out == "Paris.\n"
    # Two prompt tokens in half a second; then two more tokens after the first, in two seconds.
    assert "4 tok/s" in result.err
    assert "3 tokens generated (1.0 tok/s)" in result.err


def test_chat_variables_are_json_or_text(atb: Run, runner: Any) -> None:
    atb(
        "run",
        "m",
        "x",
        "--chat-template-kwarg",
        "deep=true",
        "--chat-template-kwarg",
        "date=1 Jan",
        "--chat-template-kwarg",
        "n=[1]",
    )
    assert runner.chat_template_kwargs == [{"deep": True, "date": "1 Jan", "n": [1]}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--chat-template-kwarg", "deep"], "--chat-template-kwarg deep: write NAME=VALUE"),
        (["--chat-template-kwarg", "=1"], "write NAME=VALUE"),
        (["--chat-template-kwarg", "a=1", "--chat-template-kwarg", "a=2"], "the template variable a is given twice"),
        (["--raw", "--chat-template-kwarg", "a=1"], "--raw uses no chat template"),
        (["--raw", "--no-thinking"], "--raw uses no chat template"),
    ],
)
def test_wrong_chat_variables_are_refused_before_loading(atb: Run, runner: Any, args: list[str], message: str) -> None:
    result = atb("run", "m", "x", *args)
    assert result.status == 2
    assert message in result.err
    assert not runner.loaded_with


@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_family_without_a_switch_for_thinking_refuses_the_option(
    atb: Run, runner: Any, tiny_model: str, command: str
) -> None:
    result = atb(command, tiny_model, *(["x"] if command == "run" else []), "--no-thinking")
    assert result.status == 1
    assert "--no-thinking: models of type 'tiny' have no switch for thinking" in result.err
    assert not runner.loaded_with


@pytest.mark.parametrize(("option", "value"), [("--thinking", True), ("--no-thinking", False)])
def test_the_familys_switch_for_thinking_is_set(
    atb: Run, runner: Any, tiny: Any, tiny_model: str, monkeypatch: pytest.MonkeyPatch, option: str, value: bool
) -> None:
    monkeypatch.setattr(tiny.TinyRouter, "thinking_variable", "ponder")
    assert atb("run", tiny_model, "x", option).status == 0
    assert runner.chat_template_kwargs == [{"ponder": value}]
    assert atb("run", tiny_model, "x", option, "--chat-template-kwarg", "ponder=1").status == 2


def test_json_says_what_ran_and_how_fast(atb: Run, runner: Any) -> None:
    record = json.loads(atb("run", "m", "p", "--json").out)
    assert (record["model"], record["backend"], record["dtype"]) == ("m", "cpu", "float32")
    assert record["load_time"] >= 0
    assert record["metrics"]["tokens_per_second"] == 1.0
    assert record["num_cached_tokens"] == 1


def test_an_empty_model_name_is_a_usage_error(atb: Run, runner: Any) -> None:
    result = atb("run", " ", "hello")
    assert result.status == 2
    assert "'MODEL': it is empty" in result.err


def test_what_the_output_cannot_say_is_escaped(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.pieces = ["naïve ", "😀你", "."]
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    assert main(["run", "m", "p"]) == 0
    assert written.getvalue() == b"na\\u00efve \\ud83d\\ude00\\u4f60.\n"
    assert stderr.getvalue().count("this output is in ascii") == 1


def test_stdin_that_is_no_text_is_an_error_about_stdin(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    result = atb("run", "m")
    assert result.status == 1
    assert "error: stdin is not utf-8: it has the byte 0xe9" in result.err


def test_messages_of_the_api_name_options(atb: Run, runner: Any) -> None:
    runner.pieces = [
        AtbError("max_model_len=9 is too much", hint="Lower max_model_len or num_blocks, edit chat_template.jinja.")
    ]
    err = atb("run", "m", "p").err
    assert (
        "error: --max-model-len 9 is too much\nnext: Lower --max-model-len or num_blocks, edit chat_template.jinja."
        in err
    )


@pytest.mark.parametrize("args", [("run", "hi"), ("chat",)], ids=" ".join)
def test_a_model_without_a_chat_template_is_refused_with_what_to_do(
    atb: Run, chat_model: str, args: tuple[str, ...]
) -> None:
    (Path(chat_model) / "tokenizer_config.json").unlink()
    result = atb(args[0], chat_model, *args[1:], "--backend", "reference")
    assert result.status == 1
    assert "has no chat template" in result.err
    assert "next: `atb run --raw` continues a text; --chat-template FILE" in result.err
    assert atb("run", chat_model, "hi", "--raw", "--max-tokens", "1", "--backend", "reference").status == 0


def test_the_template_of_a_model_is_shown_and_replaced(atb: Run, chat_model: str, tmp_path: Path) -> None:
    shown = atb("show", chat_model, "--template").out
    own = tmp_path / "own.jinja"
    own.write_text(shown.replace("You are helpful.", "You are a pirate."), encoding="utf-8")
    options = ("--chat-template", str(own), "--json", "--max-tokens", "1", "--backend", "reference")
    assert "You are a pirate." in json.loads(atb("run", chat_model, "hi", *options).out)["prompt"]
    assert atb("run", chat_model, "hi", "--raw", "--chat-template", str(own)).status == 2


def test_paths_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_ATB_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "atb run ./mod")
    monkeypatch.setenv("COMP_CWORD", "2")
    main(["run"])
    assert capsys.readouterr().out == "file,./mod\n"


@pytest.mark.timeout(60)
def test_stdin_without_end_is_refused(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        result = atb("run", "m")
    assert result.status == 1
    assert "stdin has more than 16,777,216 characters" in result.err
    assert not runner.loaded_with


def test_an_adapter_answers(atb: Run, runner: Any) -> None:
    assert atb("run", "model", "--lora", "sql=adapters/sql", "Hello").status == 0
    assert runner.loaded_with["lora_modules"] == {"sql": "adapters/sql"}
    assert runner.adapter_ids == ["sql"]
    assert atb("run", "model", "--raw", "Hello").status == 0
    assert runner.adapter_ids == ["sql", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora", "adapters/sql"], "write NAME=DIRECTORY"),
        (["--lora", "a=x", "--lora", "a=y"], "the name a is given twice"),
        (["--lora", "a=x", "--lora", "b=y"], "an answer has one adapter"),
    ],
)
def test_adapters_are_checked_before_loading(atb: Run, runner: Any, options: list[str], message: str) -> None:
    result = atb("run", "model", "Hello", *options)
    assert result.status == 2 and message in result.err
    assert not runner.loaded_with


@pytest.mark.parametrize("prompt", ["pypi:some-model", "models/small.gguf", "{folder}"])
def test_arguments_in_the_wrong_order_are_told(atb: Run, prompt: str, tmp_path: Path) -> None:
    given = prompt.format(folder=tmp_path)
    result = atb("run", "What is a prime?", given)
    assert result.status == 1
    assert f"next: MODEL goes before PROMPT: atb run {given} 'What is a prime?'" in result.err


def test_bytes_that_an_ascii_terminal_passes_are_utf_8(atb: Run, runner: Any) -> None:
    atb("run", "m", "h\udcc3\udca9llo", "--raw")
    assert runner.requests == ["héllo"]
