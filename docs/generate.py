# SPDX-License-Identifier: Apache-2.0
"""Writes the pages that are generated from the code.

`api.md` describes the public modules, `cli.md` the commands, `ops.md` the registry of ops with the table of the Ascend
backend, and `settings.md`, in Chinese too, the settings. Run it after a change of any; a test fails while a page is
stale.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tools"))

from api_listing import api_page, described_names  # noqa: E402 - from tools/

_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->"


def cli_page() -> str:
    """Every command with its options."""
    from atb_cli.app import COMMANDS, app
    from atb_cli.errors import __doc__ as statuses
    from atb_cli.plugin_commands import KNOWN_COMMANDS

    context = click.Context(app, info_name="atb")
    parts = ["# Commands", _NOTE, _paragraphs(app.help), _options(app, context)]
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        parts += _command(command, f"atb {name}", "##")
    for name, package in KNOWN_COMMANDS.items():
        group, _, last = name.rpartition(" ")
        within = app.get_command(context, group) if group else app
        assert isinstance(within, click.Group)
        command = within.get_command(context, last)
        assert command is not None
        section = _command(command, f"atb {name}", "##")
        parts += [section[0], f"Needs the package `{package}`.", *section[1:]]
    assert statuses is not None
    parts += ["## Exit status", inspect.cleandoc(statuses).split("\n\n", 1)[1]]
    parts.append(
        "An error is one paragraph on stderr and the next step; `--traceback` or `ATB_TRACEBACK=1` shows more."
    )
    parts.append('Completion for a shell: `eval "$(_ATB_COMPLETE=bash_source atb)"` (or `zsh_source`, `fish_source`).')
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, name: str, heading: str) -> list[str]:
    """The sections of a command and, of a group, those of its commands."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"{heading} {name}", f"```text\n{usage}\n```", _paragraphs(command.help), _options(command, context)]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
            parts += _command(subcommand, f"{name} {child}", f"{heading}#")
    return parts


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def _options(command: click.Command, context: click.Context) -> str:
    rows = ["| option | |", "|---|---|"]
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and param.param_type_name == "option" and "--help" not in param.opts:
            flags, text = (part.replace("|", "\\|") for part in record)
            rows.append(f"| `{flags}` | {text} |")
    return "\n".join(rows)


def ops_page() -> str:
    """Every op with its attributes, inputs, engines, and what it becomes on Ascend."""
    import atb_core.graph.ops  # noqa: F401 - registers them
    from atb_core.graph.op import registered_ops

    # Ops of plugins may have been imported too; they are not core's to document.
    ops = {name: op for name, op in sorted(registered_ops().items()) if not op.namespace}
    rules = _ascend_rules()
    without = ", ".join(f"[{name}](#{name.lower()})" for name, op in ops.items() if "atb" not in op.backends)
    parts = [
        "# Ops",
        _NOTE,
        "What networks are made of. Names and attributes follow ATB's, in snake case. An input with an exclamation "
        "mark is written in place.",
        "`atb` is [Ascend](ascend.md): there an op becomes operations of ATB. The types are those of its first input "
        "on an Atlas A2; an Atlas 300I Duo (310P) has no bfloat16. What a limit excludes is refused when the engine "
        "is built, by name.",
        f"Without an operation on ATB, and refused there: {without}.",
    ]
    for name, op in ops.items():
        attributes = [
            f"`{field.name}`" + ("" if field.default is dataclasses.MISSING else f" = {_value(field.default)}")
            for field in dataclasses.fields(op)  # type: ignore[arg-type]
        ]
        labels = op.input_names if isinstance(op.input_names, tuple) else ("depend on the attributes",)
        inputs = [f"{label}!" if index in op.writes else label for index, label in enumerate(labels)]
        rows = [
            ("attributes", ", ".join(attributes) or "none"),
            ("inputs", ", ".join(inputs)),
            ("engines", ", ".join(sorted(op.backends))),
            *(_ascend_rows(name, rules) if "atb" in op.backends else []),
        ]
        parts += [f"## {name}", _paragraphs(op.__doc__)]
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {title} | {cell} |" for title, cell in rows)]))
    parts += ["## Functions", "`atb_core.nn.functional`:", described_names("atb_core.nn.functional", {})]
    return "\n\n".join(parts) + "\n"


def _ascend_rules() -> dict[str, dict[str, Any]]:
    """The Ascend backend's table by op. The simulator is built from the same code as the backend for devices."""
    from atb_ascend.backend import load_simulator

    return {rule["op"]: rule for rule in load_simulator().op_rules()}


def _ascend_rows(name: str, rules: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    if name == "Reshape":
        return [("on ATB", "no operation: the tensor is read in another shape")]
    rule = rules[name]
    rows = [("on ATB", rule["becomes"]), ("types on ATB", ", ".join(rule["types"]))]
    return [*rows, ("limits on ATB", rule["limits"])] if rule["limits"] else rows


def _value(value: object) -> str:
    return f"`{getattr(value, 'value', value)}`"


#: The keys of the file: name, example, the variable that overrides it with its form, meaning.
KEYS = (
    ("models.default", '"qwen"', "", "the model of commands that are given none, and of the name `default`"),
    ("models.aliases.NAME", '"Qwen/Qwen2.5-0.5B-Instruct"', "", "a short name of a model, wherever one is named"),
    ("engine.graph", '"cpp"', "", "who writes a model's graphs: `python` (the default) or `cpp`"),
    ("engine.cache_packed", "true", "ATB_CACHE_PACKED=1",
     "keep packed weights on the disk ([models](models.md#packed-weights)): `true`, or a directory"),
    ("plugins.only", '["atb-qwen2"]', "ATB_PLUGINS=NAME,...", "use these packages and no others"),
    ("plugins.disabled", '["atb-foo"]', "ATB_NO_PLUGINS=NAME,...", "do not use these; `all`: none at all"),
    ("plugins.strict", "true", "ATB_STRICT=1", "a plugin that fails is an error, not a warning"),
    ("plugins.prefer.TYPE", '"atb-foo"', "ATB_PLUGINS_PREFER=TYPE=NAME,...",
     "the package that serves a model type which several claim"),
)  # fmt: skip
#: Further environment variables, with their meaning.
VARIABLES = {
    "ATB_CONFIG": "path of the settings file",
    "ATB_PLUGIN_TIMEOUT": "seconds after which `atb plugins doctor` ends an import; commands warn after 20 at most; 60",
    "ATB_TRACEBACK": "`1` prints tracebacks of errors",
    "ATB_NUM_THREADS": "threads of the CPU engine, before `OMP_NUM_THREADS`; all cores",
    "ATB_CPU_ISA": "the path of the CPU engine: `portable`, `neon`, `avx2`, `avx512`, ...; the best of the machine",
    "ATB_PREFETCH_AHEAD": "bytes ahead of use at which a weight is fetched, `0` for none; measured in the first steps",
    "ATB_CACHE": "where `pypi:` models are stored; `$XDG_CACHE_HOME/atb_core`",
    "ATB_SERVE_API_KEY": "`atb serve`: the key that clients must give; `ATB_SERVE_PORT`, ...: its other options",
    "ATB_OPERATION_EXECUTE_ASYNC": "Ascend: `1` launches segments from a second thread",
    "ATB_LLM_ENABLE_AUTO_TRANSPOSE": "Ascend: `0` stores weights as in the checkpoint, none transposed",
    "ASCEND_LAUNCH_BLOCKING": "Ascend: `1` waits after each segment, so that an error names its layer",
    "ASCEND_HOME_PATH": "Ascend: the CANN toolkit, set by its set_env.sh (or `ASCEND_TOOLKIT_HOME`)",
    "ASCEND_DRIVER_PATH": "Ascend: the driver, where `atb doctor` does not find it",
    "ASCEND_RT_VISIBLE_DEVICES": "Ascend: the devices that a process may use",
    "ATB_COMM_BACKEND": "Ascend: the library that sums over devices, `hccl` (the default) or `lccl`, within one server",
    "LOCAL_RANK": "Ascend: the number of this process's device; torchrun sets it",
    "RANK_TABLE_FILE": "Ascend: HCCL's table of the devices of several servers",
    "ATB_HOME_PATH": "Ascend: ATB, set by the set_env.sh of NNAL",
    "ATB_SIM_MEMORY": "simulator: memory of a device in bytes",
    "ATB_SIM_DEVICES": "simulator: number of devices",
    "ATB_SIM_SOC": "simulator: name of the chip; `Ascend910B2`",
    "ATB_SIM_VERSION": "simulator: version of ATB; `8.5.0`",
    "HF_HOME": "cache of the Hugging Face hub (`HF_HUB_CACHE`: of its models)",
    "HF_ENDPOINT": "address of a mirror of the hub",
    "HF_TOKEN": "access to private and gated models",
    "HF_HUB_OFFLINE": "`1` uses the cache alone",
    "MODELSCOPE_CACHE": "cache of ModelScope",
    "MODELSCOPE_ENDPOINT": "address of ModelScope",
    "MODELSCOPE_API_TOKEN": "access to private models of ModelScope",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "`0`: torch loads no device backends, which atb sets where it would fail",
}
_SETTINGS = """# Settings

{note}

The settings file is `~/.config/atb/config.toml`, or what `ATB_CONFIG` names. It is TOML; no key is required, and one
that does not exist is an error. Arguments of functions and options of commands come before variables, variables before
the file. An empty variable counts as not set. [中文](zh/settings.md)

```toml
{example}
```

## The settings file

| key | variable | meaning |
|---|---|---|
{keys}

`plugins.disabled` and `ATB_NO_PLUGINS` add up. A name that exists on the disk is a path, not an alias; an alias leads
to a model, not to another alias. Where a command takes MODEL alone, the default model may be left out: `atb chat`. Else
it is called `default`: `atb run default "Hello"`, `ModelRunner("default")`.

## Environment variables

| variable | meaning |
|---|---|
{variables}
"""
_SETTINGS_ZH = """# 设置

{note}

设置文件是 `~/.config/atb/config.toml`，或由 `ATB_CONFIG` 指定。格式为 TOML；所有键都可省略，不存在的键会报错。
函数参数和命令选项优先于环境变量，环境变量优先于文件。空的变量视为未设置。[English](../settings.md)

```toml
{example}
```

## 设置文件

| 键 | 变量 | 含义 |
|---|---|---|
{keys}

`plugins.disabled` 与 `ATB_NO_PLUGINS` 相加。磁盘上存在的名字是路径而不是别名；别名指向模型，不能指向另一个别名。
命令只有 MODEL 一个参数时，可以省略默认模型：`atb chat`。
其他情况下它叫 `default`：`atb run default "你好"`、`ModelRunner("default")`。

## 环境变量

| 变量 | 含义 |
|---|---|
{variables}
"""
_CHINESE = {
    "models.default": "未指定模型的命令所用的模型，也是名字 `default` 所指的模型",
    "models.aliases.NAME": "模型的短名字，凡是写模型的地方都可以用",
    "engine.cache_packed": "把打包后的权重保存在磁盘上（[模型](models.md)）：`true` 或一个目录",
    "engine.graph": "由谁编写模型的计算图：`python`（默认）或 `cpp`",
    "plugins.only": "只使用这些包",
    "plugins.disabled": "不使用这些包；`all`：全部不用",
    "plugins.strict": "插件失败时报错，而不是警告",
    "plugins.prefer.TYPE": "多个包都声明同一模型类型时，由哪个包提供服务",
    "ATB_CONFIG": "设置文件的路径",
    "ATB_PLUGIN_TIMEOUT": "导入超过这么多秒时发出警告，`atb plugins doctor` 则结束它；60",
    "ATB_TRACEBACK": "`1`：打印错误的调用栈",
    "ATB_NUM_THREADS": "CPU 引擎的线程数，优先于 `OMP_NUM_THREADS`；默认用全部核心",
    "ATB_CPU_ISA": "CPU 引擎的路径：`portable`、`neon`、`avx2`、`avx512` 等；默认用本机最佳的",
    "ATB_PREFETCH_AHEAD": "提前多少字节预取权重，`0` 为不预取；默认在最初几步中测得",
    "ATB_CACHE": "`pypi:` 模型的存放位置；`$XDG_CACHE_HOME/atb_core`",
    "ATB_SERVE_API_KEY": "`atb serve`：客户端必须给出的密钥；`ATB_SERVE_PORT` 等：其余选项",
    "ATB_OPERATION_EXECUTE_ASYNC": "昇腾：`1` 表示由第二个线程下发各段",
    "ATB_LLM_ENABLE_AUTO_TRANSPOSE": "昇腾：`0` 表示权重按检查点中的样子存放，不转置",
    "ASCEND_LAUNCH_BLOCKING": "昇腾：`1` 表示每段之后等待，使错误能指出所在的层",
    "ASCEND_HOME_PATH": "昇腾：CANN 工具包，由其 set_env.sh 设置（或 `ASCEND_TOOLKIT_HOME`）",
    "ASCEND_DRIVER_PATH": "昇腾：驱动的位置，供 `atb doctor` 找不到时使用",
    "ASCEND_RT_VISIBLE_DEVICES": "昇腾：进程可以使用的设备",
    "ATB_COMM_BACKEND": "昇腾：在设备之间求和的通信库，`hccl`（默认）或 `lccl`（限一台服务器之内）",
    "LOCAL_RANK": "昇腾：本进程所用设备的编号，由 torchrun 设置",
    "RANK_TABLE_FILE": "昇腾：多台服务器时 HCCL 的 rank 表",
    "ATB_HOME_PATH": "昇腾：ATB，由 NNAL 的 set_env.sh 设置",
    "ATB_SIM_MEMORY": "模拟器：每个设备的内存字节数",
    "ATB_SIM_DEVICES": "模拟器：设备数",
    "ATB_SIM_SOC": "模拟器：芯片的名字；`Ascend910B2`",
    "ATB_SIM_VERSION": "模拟器：ATB 的版本；`8.5.0`",
    "HF_HOME": "Hugging Face hub 的缓存（`HF_HUB_CACHE`：其中的模型）",
    "HF_ENDPOINT": "hub 镜像的地址",
    "HF_TOKEN": "访问私有和受限的模型",
    "HF_HUB_OFFLINE": "`1`：只用缓存",
    "MODELSCOPE_CACHE": "ModelScope 的缓存",
    "MODELSCOPE_ENDPOINT": "ModelScope 的地址",
    "MODELSCOPE_API_TOKEN": "访问 ModelScope 的私有模型",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "`0`：torch 不加载设备后端；会出错时由 atb 设置",
}


def settings_page(page: str = _SETTINGS, translated: dict[str, str] | None = None) -> str:
    """Every key of the settings file and every environment variable."""
    tables: dict[str, list[str]] = {}
    for name, example, _, _ in KEYS:
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{_EXAMPLES.get(key, key)} = {example}")
    example = "\n\n".join("\n".join([f"[{table}]", *lines]) for table, lines in tables.items())
    texts = {**{name: text for name, _, _, text in KEYS}, **VARIABLES}
    if translated is not None:
        assert texts.keys() == translated.keys(), texts.keys() ^ translated.keys()
        texts = translated
    keys = [f"| `{name}` | {f'`{variable}`' if variable else ''} | {texts[name]} |" for name, _, variable, _ in KEYS]
    variables = [f"| `{name}` | {texts[name]} |" for name in VARIABLES]
    return page.format(note=_NOTE, example=example, keys="\n".join(keys), variables="\n".join(variables))


def chinese_settings_page() -> str:
    """The same in Chinese."""
    return settings_page(_SETTINGS_ZH, _CHINESE)


# Keys that users choose, in the example of a settings file.
_EXAMPLES = {"NAME": "qwen", "TYPE": "qwen2"}
PAGES = {
    "api.md": api_page,
    "cli.md": cli_page,
    "ops.md": ops_page,
    "settings.md": settings_page,
    "zh/settings.md": chinese_settings_page,
}


def main() -> None:
    """Writes all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
