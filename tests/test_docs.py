"""The documents say what the code does: the command-line page is the help, and README's Python runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def test_the_command_line_page_is_what_help_says() -> None:
    script = "import runpy; print(runpy.run_path('docs/make_cli_page.py')['page']())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    written = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert done.stdout.strip() == written.strip(), "run: python docs/make_cli_page.py"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, talk = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(pictures, names)
    assert names["answer"].segments, "the README's first example shows a mask"
    assert (tmp_path / "overlay.png").is_file()
    assert (tmp_path / "results" / "scene_1.json").is_file()
    assert len(names["answers"]) == 2
    exec(talk, names)
    assert [len(turn.masks) for turn in names["conv"].turns] == [1, 0, 2]
    assert (tmp_path / "talk" / "conversation.json").is_file()


@pytest.mark.parametrize("document", ["README.md", "examples/README.md", "lisaseg/nano/README.md", "CONTRIBUTING.md"])
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing
