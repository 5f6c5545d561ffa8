# SPDX-License-Identifier: Apache-2.0
"""Adapters are models of their own, and come and go for who has the key."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import weakref
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file
from scripted_model import write_scripted
from serving import SCRIPTS, serving

from atb_core import ModelRunner
from atb_core.errors import SettingsError
from atb_serve.app import make_app
from atb_serve.settings import Access, Limits, ServeSettings, hashed_keys

KEY = {"Authorization": "Bearer secret"}


def write_adapter(base: Path, directory: Path, scale: float) -> Path:
    """Writes an adapter for the query matrix of the first layer."""
    config = json.loads((base / "config.json").read_text())
    hidden = config["hidden_size"]
    rows = config["num_attention_heads"] * config.get("head_dim", hidden // config["num_attention_heads"])
    generator = torch.Generator().manual_seed(7)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    directory.mkdir()
    save_file(
        {
            f"{module}.lora_A.weight": torch.randn(4, hidden, generator=generator),
            f"{module}.lora_B.weight": torch.randn(rows, 4, generator=generator) * scale,
        },
        directory / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture
def locked(tmp_path: Path) -> ServeSettings:
    return ServeSettings(access=Access(hashed_keys(("secret",), None), None), lora_dir=tmp_path)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scripted(tmp_path_factory.mktemp("model") / "tiny", SCRIPTS)


def names(client: httpx.Client) -> list[str]:
    return [each["id"] for each in client.get("/v1/models").json()["data"]]


def test_an_adapter_is_a_model(small_model: Path, tmp_path: Path, locked: ServeSettings) -> None:
    adapter = write_adapter(small_model, tmp_path / "sql", 1.0)
    runner = ModelRunner(small_model, lora_modules={"sql": adapter})
    with serving(runner, locked) as served, served.http(headers=KEY) as client:
        assert names(client) == ["tiny", "alias", "sql"]
        assert client.get("/v1/models/sql").json()["parent"] == "tiny"
        for name, placed in (("tiny", 0), ("sql", 1)):
            answer = client.post("/v1/completions", json={"model": name, "prompt": "x", "max_tokens": 2}).json()
            assert answer["model"] == name
            assert runner.model.lora.num_placed == placed
        refused = client.post("/v1/embeddings", json={"model": "sql", "input": "x"})
        assert refused.status_code == 400 and "not of an adapter" in refused.text
        assert client.get("/health").status_code == 200
        # Unloaded between the lookup of a request's model and its first step.
        runner.unload_adapter("sql")
        gone = client.post("/v1/completions", json={"model": "sql", "prompt": "x"})
        assert (gone.status_code, gone.json()["error"]["param"]) == (404, "model")


def test_adapters_are_loaded_and_unloaded_by_who_has_the_key(
    small_model: Path, tmp_path: Path, locked: ServeSettings
) -> None:
    adapter = write_adapter(small_model, tmp_path / "sql", 1.0)
    (tmp_path / "empty").mkdir()
    load = {"lora_name": "sql", "lora_path": str(adapter)}
    with serving(ModelRunner(small_model), locked) as served:
        with served.http() as client:
            assert client.post("/v1/load_lora_adapter", json=load).status_code == 401
        with served.http(headers=KEY) as client:
            assert client.post("/v1/load_lora_adapter", json=load).json()["parent"] == "tiny"
            again = client.post("/v1/load_lora_adapter", json=load)
            assert again.status_code == 400 and "loaded already" in again.text
            for name in ("sql", "base", "", "x" * 300):
                refused = client.post("/v1/load_lora_adapter", json={**load, "lora_name": name})
                assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_name")
            assert client.post("/v1/load_lora_adapter", json={**load, "load_inplace": True}).status_code == 200
            own = client.post("/v1/load_lora_adapter", json={**load, "lora_name": "alias"})
            assert own.status_code == 400 and "name of the model itself" in own.text
            wrong = client.post("/v1/load_lora_adapter", json={"lora_name": "b", "lora_path": "empty"})
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "lora_path")
            assert "no adapter_config.json" in wrong.text
            assert names(client) == ["tiny", "alias", "sql"]
            assert client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"}).status_code == 200
            assert client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"}).status_code == 404
            assert client.post("/v1/completions", json={"model": "sql", "prompt": "x"}).status_code == 404
            assert names(client) == ["tiny", "alias"]


def test_adapters_elsewhere_are_not_loaded(small_model: Path, tmp_path: Path, locked: ServeSettings) -> None:
    elsewhere = write_adapter(small_model, tmp_path / "sql", 1.0)
    inside = tmp_path / "inside"
    inside.mkdir()
    settings = dataclasses.replace(locked, lora_dir=inside)
    with serving(ModelRunner(small_model), settings) as served, served.http(headers=KEY) as client:
        for path in (str(elsewhere), "../sql", f"{inside}/../sql", "/etc", "", ".", str(inside)):
            refused = client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": path})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_path")
            # Nothing tells if there is such a directory.
            assert "is no directory in the server's folder" in refused.text
    settings = dataclasses.replace(locked, lora_dir=None)
    with serving(ModelRunner(small_model), settings) as served, served.http(headers=KEY) as client:
        refused = client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(elsewhere)})
        assert refused.status_code == 403 and "--lora-dir" in refused.text


def test_nothing_is_left_of_adapters_and_there_are_not_too_many(
    small_model: Path, tmp_path: Path, locked: ServeSettings
) -> None:
    write_adapter(small_model, tmp_path / "sql", 1.0)
    settings = dataclasses.replace(locked, limits=Limits(max_adapters=2))
    with serving(ModelRunner(small_model), settings) as served, served.http(headers=KEY) as client:
        for name in ("first", "second", "third"):
            loaded = client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": "sql"})
            assert loaded.status_code == (400 if name == "third" else 200)
        assert loaded.json()["error"]["param"] == "lora_name" and "--max-adapters" in loaded.text
        assert client.post("/v1/completions", json={"model": "first", "prompt": "x"}).status_code == 200
        counts = client.get("/metrics").text
        assert 'model_name="first"' in counts
        for name in ("tiny", "second"):  # nobody has asked for them yet
            for series in ("atb_generation_tokens_total{%s}", "atb_time_to_first_token_seconds_count{%s}",
                           'atb_request_success_total{finished_reason="stop",%s}'):  # fmt: skip
                assert f"""{series % f'model_name="{name}"'} 0.0""" in counts
        assert client.post("/v1/unload_lora_adapter", json={"lora_name": "first"}).status_code == 200
        assert 'model_name="first"' not in client.get("/metrics").text


def test_an_unloaded_adapter_is_freed_without_the_garbage_collector(
    small_model: Path, tmp_path: Path, locked: ServeSettings
) -> None:
    write_adapter(small_model, tmp_path / "sql", 1.0)
    body = {"model": "sql", "prompt": "x", "max_tokens": 99, "ignore_eos": True}
    gc.collect()
    gc.disable()
    try:
        with serving(ModelRunner(small_model), locked) as served, served.http(headers=KEY) as client:
            for change, status in (({}, 200), ({"logit_bias": {"99999": 1}}, 400), ({"stream": True}, 200)):
                client.post("/v1/load_lora_adapter", json={"lora_name": "sql", "lora_path": "sql"})
                freed = threading.Event()
                weakref.finalize(served.runner.model.lora.adapters["sql"], freed.set)
                with client.stream("POST", "/v1/completions", json={**body, **change}) as answer:
                    assert answer.status_code == status
                    next(answer.iter_bytes())  # a stream is left behind its beginning
                client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
                # The last step is kept until the next one.
                client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
                assert freed.wait(60)
    finally:
        gc.enable()


def test_a_server_without_a_key_loads_nothing(small_model: Path, tmp_path: Path) -> None:
    with serving(ModelRunner(small_model)) as served, served.http() as client:
        for action in ("load", "unload"):
            body = {"lora_name": "x", **({"lora_path": "/"} if action == "load" else {})}
            refused = client.post(f"/v1/{action}_lora_adapter", json=body)
            assert refused.status_code == 403 and "this server has none" in refused.text


def test_an_adapter_cannot_have_the_models_name(small_model: Path, tmp_path: Path) -> None:
    adapter = write_adapter(small_model, tmp_path / "tiny", 1.0)
    runner = ModelRunner(small_model, lora_modules={"tiny": adapter})
    with runner, pytest.raises(SettingsError, match="tiny has the name of the model"):
        make_app(runner, ["tiny"], ServeSettings())
