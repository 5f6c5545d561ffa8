# SPDX-License-Identifier: Apache-2.0
"""Groups whose processes torchrun, or another program that sets its variables, has started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from runner.tiny_tokenizers import byte_level

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import RequestError
from atb_testing import tiny_checkpoint
from atb_testing.adapters import write_random_adapter

pytest.importorskip("torch", reason="the processes meet by torch.distributed")

#: Opens a model as the rank that the environment says, answers, and waits for a line before it answers again.
SCRIPT = """
import json, os, sys
from atb_core import ModelRunner, SamplingParams
runner = ModelRunner(
    sys.argv[1], rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]), backend="cpu",
    load_tokenizer=False, num_threads=1, max_model_len=64,
)
for line in sys.stdin:
    (output,) = runner.generate([json.loads(line)], SamplingParams(max_tokens=6, ignore_eos=True))
    print(json.dumps(output.token_ids), flush=True)
"""
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(
        tmp_path_factory.mktemp("qwen2"), "qwen2", num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=6,
        hidden_size=96, intermediate_size=96,
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[int]:
    with ModelRunner(checkpoint, backend="cpu", load_tokenizer=False, max_model_len=64) as runner:
        (output,) = runner.generate([PROMPT], SamplingParams(max_tokens=6, ignore_eos=True))
    return list(output.token_ids)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def launch(size: int, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Starts `size` ranks as a launcher does."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    variables = [{**os.environ, **place, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(size)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, *arguments]
    return [subprocess.Popen(command, env=each, text=True, **pipes) for each in variables]  # type: ignore[call-overload]


@pytest.fixture
def ranks(checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[list[subprocess.Popen[str]]]:
    processes = launch(getattr(request, "param", 2), ["-c", SCRIPT, str(checkpoint)])
    yield processes
    for each in processes:
        each.kill()
        each.communicate()


def ask(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(PROMPT), file=process.stdin, flush=True)
    answer: list[int] = json.loads(process.stdout.readline())
    return answer


def test_ranks_share_a_model_until_the_first_one_ends(ranks: list[subprocess.Popen[str]], expected: list[int]) -> None:
    assert ask(ranks[0]) == expected
    assert ask(ranks[0]) == expected
    assert ranks[0].communicate() == ("", "")
    assert ranks[1].communicate() == ("", "")
    assert [each.returncode for each in ranks] == [0, 0]


@pytest.mark.parametrize("ranks", [3], indirect=True)
def test_a_rank_that_dies_is_named_and_ends_the_others(ranks: list[subprocess.Popen[str]], expected: list[int]) -> None:
    assert ask(ranks[0]) == expected
    ranks[2].kill()
    ranks[2].wait()
    named = re.compile(rf"rank 2 \(process {ranks[2].pid} on .*\) ended")
    assert named.search(ranks[0].communicate(json.dumps(PROMPT), timeout=30)[1])
    assert named.search(ranks[1].communicate(timeout=30)[1])
    assert [each.returncode for each in ranks[:2]] == [1, 1]


@pytest.mark.slow
def test_the_others_end_with_a_message_when_the_first_one_dies(
    ranks: list[subprocess.Popen[str]], expected: list[int]
) -> None:
    assert ask(ranks[0]) == expected
    ranks[0].kill()
    assert "rank 1 of 2 ends: rank 0 ended" in ranks[1].communicate(timeout=30)[1]
    assert ranks[1].returncode == 1


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"rank": 2, "world_size": 2}, "rank is below world_size"),
        ({"world_size": 2, "tensor_parallel_size": 4}, "tensor_parallel_size=4 and world_size=2 do not go together"),
        ({"world_size": 2}, "without MASTER_ADDR and MASTER_PORT"),
        ({"world_size": 2, "rank": 1}, "without MASTER_ADDR and MASTER_PORT"),
        ({"world_size": 128}, "at most 64 processes"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    options: dict[str, Any], cause: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=cause):
        ModelRunner(checkpoint, load_tokenizer=False, **options)


@pytest.fixture
def talking(tmp_path: Path) -> Path:
    """A checkpoint with a tokenizer; its answers are noise."""
    tokenizer = byte_level()
    directory = tiny_checkpoint(
        tmp_path / "talking", "qwen2", num_hidden_layers=1, vocab_size=tokenizer.get_vocab_size()
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def torchrun(
    *arguments: str, processes: Sequence[str] = ("--standalone", "--nproc-per-node", "2")
) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", *processes, "-m", "atb_cli"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*launcher, *arguments], text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def nodes() -> list[list[str]]:
    """Returns options of torchrun on two machines, which are two addresses of this one."""
    place = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    common = ["--nnodes", "2", "--nproc-per-node", "1", *place]
    return [[*common, "--node-rank", str(rank), "--local-addr", f"127.0.0.{1 + rank}"] for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_torchrun_runs_the_command_on_machines(count: int, talking: Path) -> None:
    options = ["--raw", "--max-tokens", "6", "--ignore-eos", "--keep-special-tokens"]
    words = ["run", str(talking), "Hello", *options]
    one = [sys.executable, "-m", "atb_cli", *words]
    expected = subprocess.run(one, capture_output=True, check=True, text=True, stdin=subprocess.DEVNULL).stdout
    machines = [torchrun(*words)] if count == 1 else [torchrun(*words, processes=each) for each in nodes()]
    results = [each.communicate(timeout=240) for each in machines]
    assert [out for out, _ in results] == [expected, ""][:count], results
    assert [each.returncode for each in machines] == [0, 0][:count]


@pytest.mark.slow
def test_torchrun_serves_one_model_with_adapters_and_ends_with_a_rank_that_dies(talking: Path, tmp_path: Path) -> None:
    port, adapter = free_port(), tmp_path / "adapter"
    with ModelRunner(talking, backend="cpu") as runner:
        write_random_adapter(runner.model, adapter)
    options = ["--served-model-name", "talking", "--lora", f"adapted={adapter}"]
    process = torchrun("serve", str(talking), "--port", str(port), *options)
    assert process.stderr is not None
    try:
        assert any("is served at" in line for line in process.stderr)
        texts = []
        for name, adapters in (("talking", None), ("adapted", {"adapted": adapter})):
            with ModelRunner(talking, backend="cpu", lora_modules=adapters) as runner:
                params = SamplingParams(max_tokens=6, ignore_eos=True)
                (expected,) = runner.generate(["Hello"], params, adapter_ids=[name] if adapters else None)
            body = {"model": name, "prompt": "Hello", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60).json()
            assert answer["choices"][0]["text"] == expected.outputs[0].text
            texts.append(expected.outputs[0].text)
        assert texts[0] != texts[1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = [each for each in children if b"atb_cli" in Path(f"/proc/{each}/cmdline").read_bytes()]
        assert len(ranks) == 2
        os.kill(int(ranks[1]), signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 1
        assert not any(Path(f"/proc/{each}").exists() for each in ranks)
    finally:
        process.kill()


#: Starts two ranks in a network that has no other member, and ends the network when rank 0 serves.
CUT = """
import fcntl, json, os, socket, struct, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
def switch(on):
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", int(on)))  # SIOCSIFFLAGS, IFF_UP
switch(True)
place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "WORLD_SIZE": "2"}
command = [sys.executable, "-m", "atb_cli", "serve", sys.argv[1], "--port", "8123"]
ranks = [
    subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
    for rank in range(2)
]
assert any("is served at" in line for line in ranks[0].stderr)
switch(False)
start = time.monotonic()
def end_of(rank):
    lines = [(time.monotonic() - start, line) for line in rank.stderr]
    ((seconds, message),) = [each for each in lines if each[1].startswith("error: ")]
    return message, seconds, rank.wait()
with ThreadPoolExecutor() as pool:
    print(json.dumps(list(pool.map(end_of, ranks))))
"""


@pytest.mark.slow
def test_ranks_end_when_the_network_between_them_does(talking: Path) -> None:
    own_network = ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*own_network, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine makes no networks: {error}")
    command = [*own_network, sys.executable, "-c", CUT, str(talking)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    messages, seconds, codes = zip(*json.loads(result.stdout), strict=True)
    assert re.search(r"error: rank 1 \(process \d+ on .*\) ended or cannot be reached any more, so", messages[0])
    assert "error: rank 1 of 2 ends: rank 0 ended or cannot be reached any more" in messages[1]
    assert codes == (1, 1)
    assert max(seconds) < 10
