"""`lisaseg chat`: line by line from a pipe, and typed in a real terminal."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lisaseg.conversation import Conversation
from lisaseg.surfaces.chat import COMMANDS
from lisaseg.surfaces.cli import main
from lisaseg.surfaces.commands import DONE, FAILED, INTERRUPTED
from lisaseg.values import Event

SCENE = Path(__file__).parents[2] / "examples" / "scene_1.jpg"
OTHER = SCENE.with_name("scene_2.jpg")
ASK = "Segment the cat."

READY = r"\x1b\[\?2004h"
TAKEN = r"\x1b\[\?2004l"
"""How a terminal is told that a line can be typed (bracketed paste), and that it was."""

Talk = Callable[..., tuple[int, str, str]]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Pipes lines to a chat in a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def piped(*lines: str, flags: tuple[str, ...] = (), image: Path = SCENE) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        code = main(["chat", str(image), *flags])
        return code, *capsys.readouterr()

    return piped


class TestPiped:
    def test_each_line_is_answered_and_earlier_ones_are_remembered(self, talk: Talk, tmp_path: Path) -> None:
        code, out, err = talk(ASK, "", "What is it used for?")
        assert (code, err) == (DONE, "")
        words, segment, overlay, second, remark = out.splitlines()
        assert "the cat" in words
        assert re.match(r"\S 0  the cat  score", segment)
        assert overlay == "overlay lisaseg_out/scene_1_0_overlay.png"
        assert second.startswith("It is used for")
        assert remark == "(no mask)"
        assert (tmp_path / "lisaseg_out" / "scene_1_0_mask_0.png").is_file()

    def test_json_is_one_object_per_answer_and_nothing_else(self, talk: Talk, tmp_path: Path) -> None:
        code, out, err = talk(ASK, "And the dog?", flags=("--json",))
        assert (code, err) == (DONE, "")
        records = [json.loads(line) for line in out.splitlines()]
        assert [record["turn"] for record in records] == [0, 1]
        assert [record["instruction"] for record in records] == [ASK, "And the dog?"]
        assert records[0]["segments"][0]["rle"]["size"] == [480, 480]
        assert list(tmp_path.iterdir()) == []

    def test_mistakes_are_one_line_each_and_the_rest_goes_on(self, talk: Talk) -> None:
        lines = (
            "/click 1 1",
            "/dance",
            "/click",
            "/click a b",
            "/click 1 1 *",
            "/undo",
            '/save "x',
            "/export",
            "/",
            ASK,
        )
        code, out, err = talk(*lines)
        assert code == FAILED
        told = err.splitlines()
        assert len(told) == len(lines) - 1
        assert all(line.startswith("error: ") for line in told)
        assert "there is no mask yet" in told[0]
        assert told[1] == "error: there is no command /dance; /help shows which there are"
        assert told[2] == "error: expected /click X Y [+|-] [SEGMENT]"
        assert "nothing to undo" in told[5]
        assert "the cat" in out

    def test_clicks_correct_the_last_mask_and_undo_takes_them_back(self, talk: Talk) -> None:
        code, out, err = talk(ASK, "What is it used for?", "/click 5 5", "/click 150 200 -", "/undo", flags=("--json",))
        assert (code, err) == (DONE, "")
        records = [json.loads(line) for line in out.splitlines()]
        assert [record["turn"] for record in records] == [0, 1, 0, 0, 1]
        masks = [record["segments"][0]["rle"]["counts"] for record in records if record["segments"]]
        assert len(set(masks)) == 3

    def test_of_several_masks_one_must_be_named(self, talk: Talk) -> None:
        code, out, err = talk(
            "Segment the bird and the cat.", "/click 5 5", "/click 5 5 + 7", "/click 5 5 + 1", "/click 9 9"
        )
        assert code == FAILED
        assert err.splitlines() == ["error: say which mask, one of 0, 1: /click X Y [+|-] [SEGMENT]"] * 2
        assert out.count("overlay.png") == 3

    def test_save_and_go_on(self, talk: Talk, tmp_path: Path) -> None:
        code, _, err = talk(ASK, "/save talk")
        assert (code, err) == (DONE, f"saved: {Path('talk') / 'conversation.json'}\n")
        _, out, _ = talk("What is it used for?", flags=("--json",), image=tmp_path / "talk")
        assert json.loads(out)["text"].startswith("It is used for")

    def test_export_writes_the_last_answer(self, talk: Talk, tmp_path: Path) -> None:
        code, _, err = talk(ASK, "/export 'my results'", flags=("--json",))
        assert code == DONE
        assert err.startswith("written: ")
        files = sorted(path.name for path in (tmp_path / "my results").iterdir())
        assert files == ["scene_1_0.json", "scene_1_0_mask_0.png", "scene_1_0_overlay.png"]

    def test_another_picture_and_another_model(self, talk: Talk, talking_model: str) -> None:
        lines = (
            ASK,
            f"/image {OTHER}",
            "Find the sheep.",
            f"/model {talking_model}",
            "Segment the dog.",
            "/image gone.png",
        )
        code, out, err = talk(*lines, flags=("--json", "--max-new-tokens", "12"))
        assert code == FAILED
        records = [json.loads(line) for line in out.splitlines()]
        assert [Path(record["image"]).name for record in records] == ["scene_1.jpg", "scene_2.jpg", "scene_2.jpg"]
        assert [record["turn"] for record in records] == [0, 0, 0]
        assert "sheep" in records[1]["text"]
        assert "sheep" not in records[2]["text"]
        assert "gone.png" in err

    def test_help_names_every_command(self, talk: Talk) -> None:
        _, out, _ = talk("/help", "/quit now", ASK)
        assert all(f"/{name}" in out for name in COMMANDS)
        assert "cat" not in out

    def test_help_is_no_json(self, talk: Talk) -> None:
        _, out, err = talk("/help", flags=("--json",))
        assert out == ""
        assert "/click" in err

    def test_no_answer_takes_the_files_of_another(self, talk: Talk, tmp_path: Path) -> None:
        talk(ASK, "/model nano", ASK, flags=("--out", "out"))
        assert {"scene_1_0.json", "scene_1_1.json"} <= {path.name for path in (tmp_path / "out").iterdir()}

    def test_what_was_forgotten_is_told(self, talk: Talk) -> None:
        _, out, _ = talk(*[ASK] * 20)
        assert re.search(r"\(the oldest \d+ turns no longer fit and were forgotten\)", out)

    def test_what_cannot_be_started_is_told_in_one_line(self, talk: Talk) -> None:
        for image, flags in ((Path("nowhere.jpg"), ()), (SCENE, ("--model", "nobody"))):
            code, out, err = talk(ASK, image=image, flags=flags)
            assert (code, out) == (FAILED, "")
            assert err.startswith("error: ")
            assert err.count("\n") == 1

    def test_an_answer_that_cannot_be_written_ends_its_line(self, talk: Talk) -> None:
        Path("taken").touch()
        code, out, err = talk(ASK, flags=("--out", "taken"))
        assert code == FAILED
        assert out.endswith("the cat.\n")
        assert err.startswith("error: cannot make the folder taken")

    def test_a_closed_stdin_says_nothing(self, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", None)  # what a shell's <&- makes of it
        assert main(["chat", str(SCENE)]) == DONE

    def test_ctrl_c_ends_it(self, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*args: object) -> Iterator[Event]:
            raise KeyboardInterrupt
            yield

        monkeypatch.setattr(Conversation, "stream", interrupted)
        code, _, err = talk(ASK, ASK)
        assert code == INTERRUPTED
        assert err.startswith("interrupted: ")


class Terminal:
    """A process whose stdin, stdout and stderr are a terminal of 100 x 40 characters."""

    def __init__(self, *argv: str, home: Path):
        import fcntl
        import struct
        import termios

        self._main, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 1000, 800))
        looks = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PROMPT_TOOLKIT_NO_CPR": "1"}
        command = [sys.executable, "-m", "lisaseg", *argv]
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, **looks, "HOME": str(home)},
            start_new_session=True,
            close_fds=True,
        )
        os.close(child)
        self.shown = ""

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """What is shown until the pattern is among it; it is then taken as read."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.shown)):
            assert time.monotonic() < end, f"{pattern!r} did not come; shown: {self.shown[-2000:]!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._main, 65536).decode("utf-8", "replace")
                except OSError:
                    pytest.fail(f"it ended before {pattern!r}; shown: {self.shown[-2000:]!r}")
        read, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return read

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens a chat with the flags given."""
    terminals = []
    (tmp_path / "home").mkdir()

    def open_one(*flags: str) -> Terminal:
        terminals.append(Terminal("chat", str(SCENE), *flags, home=tmp_path / "home"))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
class TestTyped:
    def test_words_stream_a_picture_is_shown_and_history_is_kept(
        self, opened: Callable[..., Terminal], tmp_path: Path
    ) -> None:
        terminal = opened()
        terminal.wait_for("Ctrl-D ends")
        terminal.wait_for(READY)
        terminal.type(f"{ASK}\r")
        terminal.wait_for("the cat")
        terminal.wait_for("▀.*▀")  # half blocks: this terminal says nothing of sixels
        terminal.wait_for(READY)
        terminal.type("\x1b[A\r")  # the line before
        terminal.wait_for("the cat")
        terminal.wait_for(READY)
        terminal.type("\x04")
        assert terminal.process.wait(20) == DONE
        assert ASK in (tmp_path / "home" / ".local" / "state" / "lisaseg" / "history").read_text()

    def test_ctrl_c_stops_the_answer_and_not_the_programme(self, opened: Callable[..., Terminal]) -> None:
        terminal = opened("--temperature", "100", "--max-new-tokens", "400")  # babbles for a second
        terminal.wait_for(READY)
        terminal.type("half a line\x03")
        terminal.wait_for(READY)
        terminal.type(f"{ASK}\r")
        terminal.wait_for(TAKEN)
        time.sleep(0.3)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("stopped; the conversation is as it was before")
        terminal.wait_for(READY)
        terminal.type("/undo\r")
        terminal.wait_for("nothing to undo")
        terminal.wait_for(READY)
        terminal.type("/quit\r")
        assert terminal.process.wait(20) == DONE
