# SPDX-License-Identifier: Apache-2.0
"""Reports errors: a paragraph on stderr, the next step, and an exit status.

| status | meaning |
|---|---|
| 0 | done |
| 1 | the command failed; the message says why |
| 2 | the command line itself was wrong |
| 130 | interrupted |
| 141 | the reader of the output ended |
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import traceback as traceback_module
from typing import Final

import click

from atb_core.errors import AtbError, error_text, printable
from atb_core.plugin_errors import blame, plugin_error

FAILED: Final = 1
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


def report(error: BaseException, *, traceback: bool) -> int:
    """Prints an error and returns its exit status."""
    if isinstance(error, BrokenPipeError):
        # The interpreter flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    # What was printed so far goes before the message.
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
    if traceback and not isinstance(error, click.ClickException):
        text = "".join(traceback_module.format_exception(error))
        click.echo(printable(text, 1 << 20, keep="\n\t"), err=True, nl=False)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.message = printable(error.message, 4000, keep="\n\t")  # type: ignore[misc] # quotes what was typed
        error.show()
        return error.exit_code
    error = plugin_error(error) or error
    if isinstance(error, AtbError):
        _say(f"error: {_in_options(error.message)}")
        if error.hint:
            _say(f"next: {_in_options(error.hint)}")
    elif isinstance(error, SystemExit):
        raise error
    elif isinstance(error, OSError) and error.strerror:
        where = f"{printable(error.filename, 4096)}: " if error.filename else ""
        _say(f"error: {where}{error.strerror}")
        _say("next: check that the path exists, that you may use it, and that its disk has room")
    elif isinstance(error, MemoryError):
        _say("error: this machine does not have enough memory")
        _say("next: `atb show MODEL` estimates what a model needs; --max-model-len lowers it")
    else:
        caller = blame(error, skip_core=True)
        fault = f", or in the plugin {caller[0]}, which called it{caller[1]}" if caller else ", not something you did"
        _say(f"error: {error_text(error)}. This is a bug in atb{fault}.")
        _say("next: run the command again with --traceback and report what it prints, with `atb version`")
    return FAILED


def _in_options(text: str) -> str:
    """Returns a message of the Python API with the names of arguments as those of options: `--max-model-len 10`."""
    # A name in quotes is one of a file's, such as a key of the settings.
    names = r"(?<!['\"])\b(max_model_len|kv_cache_memory_bytes|num_threads|generation_config|chat_template)\b(?!\.\w)"
    text = re.sub(names + r"='?([^\s',]+)'?", lambda match: f"--{match[1].replace('_', '-')} {match[2]}", text)
    text = re.sub(names, lambda match: f"--{match[1].replace('_', '-')}", text)
    return re.sub(r"\bATB_NO_PLUGINS\b(?!=)", "ATB_NO_PLUGINS (or --no-plugins)", text)


def _say(text: str) -> None:
    paragraph = " ".join(text.split())
    if sys.stderr.isatty():
        paragraph = textwrap.fill(paragraph, width=min(100, shutil.get_terminal_size().columns))
    click.echo(paragraph, err=True)
