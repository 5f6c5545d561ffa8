# SPDX-License-Identifier: Apache-2.0
"""Programs that people ask servers with, unmodified; `nox -s clients` installs them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_model import write_random

from atb_core import ModelRunner

HERE = Path(__file__).parent
GREETING = "Hello there, you."


def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """Runs a program and returns what it printed."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **variables}
    done = subprocess.run(
        [*map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_openai_for_node(served: Any) -> None:
    if shutil.which("node") is None or "ATB_NODE_MODULES" not in os.environ:
        pytest.skip("needs node, and the folder of node_modules with openai in ATB_NODE_MODULES")
    program = Path(os.environ["ATB_NODE_MODULES"]).parent / "client.mjs"
    shutil.copy(HERE / "client.mjs", program)
    assert json.loads(run("node", program, served.url)) == {
        "whole": GREETING, "finish": "stop", "streamed": GREETING, "responded": GREETING,
        "first": "response.created", "last": "response.completed", "sizes": [256, 256], "models": ["tiny", "alias"],
        "refused": ["NotFoundError", 404, "model"],
    }  # fmt: skip


def test_llm(served: Any, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    entry = f"- model_id: local\n  model_name: tiny\n  api_base: {served.url}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(entry, encoding="utf-8")
    for options in ([], ["--no-stream"]):
        answer = run(sys.executable, "-m", "llm", "-m", "local", *options, "[greet]", LLM_USER_PATH=str(tmp_path))
        assert answer.strip() == GREETING


def test_langchain(served: Any) -> None:
    langchain = pytest.importorskip("langchain_openai")
    url, key = f"{served.url}/v1", "none"
    chat = langchain.ChatOpenAI(model="tiny", base_url=url, api_key=key, max_retries=0)
    answer = chat.invoke("[greet]")
    assert (answer.content, answer.usage_metadata["output_tokens"]) == (GREETING, 5)
    assert "".join(chunk.content for chunk in chat.stream("[greet]")) == GREETING
    texts = langchain.OpenAI(model="tiny", base_url=url, api_key=key, max_retries=0)
    assert texts.invoke("[greet]") == GREETING
    # Without the option it sends token ids of OpenAI's own tokenizer.
    vectors = langchain.OpenAIEmbeddings(
        model="tiny", base_url=url, api_key=key, max_retries=0, check_embedding_ctx_length=False
    ).embed_documents(["a", "b"])
    assert [len(vector) for vector in vectors] == [256, 256]
    assert math.isclose(sum(value * value for value in vectors[0]), 1.0, rel_tol=1e-5)


def test_litellm(served: Any) -> None:
    litellm = pytest.importorskip("litellm")
    options = {"model": "openai/tiny", "api_base": f"{served.url}/v1", "api_key": "none", "num_retries": 0}
    messages = [{"role": "user", "content": "[greet]"}]
    assert litellm.completion(messages=messages, **options).choices[0].message.content == GREETING
    pieces = litellm.completion(messages=messages, stream=True, **options)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == GREETING
    assert len(litellm.embedding(input=["a"], **options).data[0]["embedding"]) == 256
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(messages=messages, **{**options, "model": "openai/none"})


@pytest.fixture(scope="module")
def random_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from serving import serving

    directory = write_random(tmp_path_factory.mktemp("random") / "tiny")
    with serving(ModelRunner(directory)) as found:
        yield found


def test_lm_eval_gets_the_log_probabilities_of_transformers(random_served: Any, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    transformers = pytest.importorskip("transformers")
    import torch

    questions = [
        {"question": f"{number} and one is", "choices": [f" {number + 1}", f" {number * 7}0"], "answer": number % 2}
        for number in range(12)
    ]
    (tmp_path / "data.json").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    task = (HERE / "tiny_task.yaml").read_text(encoding="utf-8")
    data = json.dumps({"data_files": str(tmp_path / "data.json"), "cache_dir": str(tmp_path / "cache")})
    (tmp_path / "tiny.yaml").write_text(f"{task}dataset_kwargs: {data}\n", encoding="utf-8")
    directory = random_served.runner.model_path
    model_args = {
        "base_url": f"{random_served.url}/v1/completions", "model": "tiny", "tokenizer": str(directory),
        "tokenizer_backend": "huggingface", "num_concurrent": 4, "max_retries": 1, "max_length": 512,
    }  # fmt: skip
    run(sys.executable, "-m", "lm_eval", "--model", "local-completions", "--tasks", "tiny_choice", "--include_path",
        tmp_path, "--model_args", json.dumps(model_args), "--log_samples", "--output_path", tmp_path / "out",
        OPENAI_API_KEY="none")  # fmt: skip
    (log,) = (tmp_path / "out").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(samples) == len(questions)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
    for sample in samples:
        for choice, (reported, _) in zip(sample["doc"]["choices"], sample["filtered_resps"], strict=True):
            context = tokenizer(sample["doc"]["question"]).input_ids
            whole = tokenizer(sample["doc"]["question"] + choice).input_ids
            with torch.no_grad():
                logprobs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            expected = sum(logprobs[i - 1, whole[i]].item() for i in range(len(context), len(whole)))
            assert float(reported) == pytest.approx(expected, abs=1e-3)


@pytest.mark.timeout(900)
def test_schemathesis_finds_no_fault_in_two_thousand_requests(random_served: Any, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    program = Path(sys.executable).with_name("schemathesis")
    run(program, "run", f"{random_served.url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", "24",
        "--seed", "0", "--request-timeout", "120", cwd=tmp_path)  # fmt: skip
    with random_served.http() as http:
        metrics = http.get("/metrics").text
    pattern = r'^atb_http_requests_total\{path="(.*?)",status="(\d+)"\} (\d+)'
    counts = {(path, int(status)): int(count) for path, status, count in re.findall(pattern, metrics, re.MULTILINE)}
    assert sum(counts.values()) >= 2000
    assert [key for key in counts if key[1] >= 500] == []
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/tokenize"):
        assert counts[path, 200]


def test_guidellm(served: Any, tmp_path: Path) -> None:
    pytest.importorskip("guidellm")
    run(sys.executable, "-m", "guidellm", "run", "--backend", f"kind=openai_http,target={served.url},model=tiny",
        "--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=16",
        "--tokenizer", f"kind=hf_auto,model={served.runner.model_path}",
        "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16",
        "--output", f"kind=json,path={tmp_path / 'out.json'}", "--disable-console", cwd=tmp_path)  # fmt: skip
    (benchmark,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["benchmarks"]
    assert benchmark["metrics"]["request_totals"]["successful"] == 16
