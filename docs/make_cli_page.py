"""Writes `docs/cli.md` from the help of every command.

python docs/make_cli_page.py
"""

import contextlib
import io
import os
from pathlib import Path

COMMANDS = (
    "",
    "segment",
    "chat",
    "convert",
    "merge",
    "assemble",
    "inspect",
    "models",
    "version",
    "data check",
    "data show",
    "data convert",
    "train finetune",
    "train qlora",
    "train lisa-7b",
    "train lisa-13b",
    "train nano",
    "train clicks",
    "evaluate",
    "compare",
    "score",
    "nano-report",
)
PAGE = Path(__file__).with_name("cli.md")


def page() -> str:
    """The page's text."""
    parts = ["# Command line\n\nWritten by `docs/make_cli_page.py` from the help of the commands.\n"]
    for command in COMMANDS:
        told = _help(command.split())
        parts.append(f"## `{f'lisaseg {command}'.strip()}`\n\n```text\n{told}\n```\n")
    return "\n".join(parts)


def _help(words: list[str]) -> str:
    """What `lisaseg WORDS --help` prints on a terminal of 100 columns without colours."""
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    from lisaseg.surfaces.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in told.getvalue().strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
