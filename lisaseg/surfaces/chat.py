"""A conversation in a terminal, or line by line from a pipe: questions are asked, lines with a slash are commands."""

import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lisaseg.config import AskOptions
from lisaseg.errors import ConversationError, InstructionError, LisaError
from lisaseg.files import is_folder
from lisaseg.surfaces import terminal
from lisaseg.values import Answer, Done, Segment, TextDelta

if TYPE_CHECKING:
    from lisaseg.conversation import Conversation
    from lisaseg.segmenter import Segmenter

COMMANDS = {
    "image": ("PATH", "go on with another picture, or with a conversation that /save wrote"),
    "click": ("X Y [+|-] [SEGMENT]", "correct a mask of the last answer: + is inside, - is outside"),
    "undo": ("", "take back the last question or click"),
    "save": ("FOLDER", "write the conversation, to go on another time: lisaseg chat FOLDER"),
    "export": ("[FOLDER]", "write overlay, masks and JSON of the last answer"),
    "model": ("NAME", "ask another model about the same picture, from the start"),
    "help": ("", "show this"),
    "quit": ("", "end; so does Ctrl-D"),
}
"""Arguments and purpose of each command."""


class Chat:
    """One person's session: a model, a conversation, and how answers are shown."""

    def __init__(
        self,
        load: Callable[[str], "Segmenter"],
        model: str,
        image: str,
        *,
        options: AskOptions,
        as_json: bool,
        in_line: bool,
        out: Path | None,
    ):
        """Loads the model and the picture.

        Args:
            load: gives a model by its name.
            model: the first one's name.
            image: a picture, or a folder that `/save` wrote.
            options: how questions are answered.
            as_json: print an object for each answer and nothing else.
            in_line: show pictures in the terminal.
            out: where answers are written; None writes none of itself.
        """
        self._load, self._options = load, options
        self._as_json, self._in_line, self._out = as_json, in_line, out
        self._segmenter = load(model)
        self._conversation = self._open(image)
        self._chosen: Segment | None = None
        self._files = 0
        """Turns of the conversations before this one, so that no answer takes the files of another."""

    def run(self, lines: Iterable[str], *, stops_at_interrupt: bool) -> bool:
        """Does what the lines say until they end or say `/quit`; returns whether all went well.

        A mistake is told in one line, and so is Ctrl-C during an answer, unless it stops everything.
        """
        went_well = True
        for line in lines:
            before = self._conversation.turns
            try:
                if not self._do(line.strip()):
                    break
            except LisaError as error:
                went_well = False
                terminal.complain(str(error))
            except KeyboardInterrupt:
                if stops_at_interrupt:
                    raise
                is_as_before = self._conversation.turns == before
                terminal.note("stopped; the conversation is as it was before" if is_as_before else "stopped")
        return went_well

    def _do(self, line: str) -> bool:
        """Does what one line says; returns whether there may be more."""
        if not line.startswith("/"):
            if line:
                self._ask(line)
            return True
        try:
            name, *arguments = shlex.split(line[1:]) or [""]
        except ValueError as error:
            raise InstructionError(f"the command cannot be read: {error}") from error
        if name in ("quit", "exit"):
            return False
        if name not in COMMANDS:
            raise InstructionError(f"there is no command /{name}; /help shows which there are")
        action = getattr(self, f"_{name}")
        try:
            inspect.signature(action).bind(*arguments)
        except TypeError as error:
            raise InstructionError(f"expected /{name} {COMMANDS[name][0]}".rstrip()) from error
        action(*arguments)
        return True

    def _ask(self, text: str) -> None:
        self._chosen = None
        answer = self._tell(text)
        self._show(answer, self._last_turn(), is_new=True)

    def _tell(self, text: str) -> Answer:
        """Asks, and shows the words as they come."""
        with terminal.telling() as say:
            for event in self._conversation.stream(text, self._options):
                if isinstance(event, Done):
                    return event.answer
                if isinstance(event, TextDelta) and not self._as_json:
                    say(event.text)
        raise AssertionError("a stream ends with Done")

    def _image(self, path: str) -> None:
        self._go_on_with(self._open(path))

    def _click(self, x: str, y: str, sign: str = "+", number: str = "") -> None:
        usage = f"expected /click {COMMANDS['click'][0]}"
        if sign not in ("+", "-"):
            raise InstructionError(f"{usage}, got the sign {sign!r}")
        try:
            point = float(x), float(y), 1 if sign == "+" else -1
            place = int(number) if number else None
        except ValueError as error:
            raise InstructionError(f"{usage}, got {error}") from error
        turn = self._last_turn(with_masks=True)
        self._chosen = self._conversation.refine(self._segment(turn, place), [point])
        self._show(self._conversation.answer(turn), turn, is_new=False)

    def _undo(self) -> None:
        self._conversation.undo()
        self._chosen = None
        if self._conversation.turns:
            turn = self._last_turn()
            self._show(self._conversation.answer(turn), turn, is_new=False)

    def _save(self, folder: str) -> None:
        terminal.note(f"saved: {self._conversation.save(folder)[0]}")

    def _export(self, folder: str = "") -> None:
        turn = self._last_turn()
        paths = self._conversation.answer(turn).save(folder or self._out or terminal.DEFAULT_OUT, stem=self._stem(turn))
        terminal.note(f"written: {', '.join(map(str, paths))}")

    def _model(self, name: str) -> None:
        self._segmenter = self._load(name)
        fresh = self._segmenter.start(self._conversation.image)
        fresh.source = self._conversation.source
        self._go_on_with(fresh)

    def _go_on_with(self, conversation: "Conversation") -> None:
        self._files += len(self._conversation.turns)
        self._conversation, self._chosen = conversation, None

    def _help(self) -> None:
        terminal.show_commands(COMMANDS, is_aside=self._as_json)

    def _open(self, image: str) -> "Conversation":
        return self._segmenter.resume(image) if is_folder(image) else self._segmenter.start(image)

    def _last_turn(self, *, with_masks: bool = False) -> int:
        """Number of the last turn, or of the last one whose answer had masks."""
        for number, turn in reversed(list(enumerate(self._conversation.turns))):
            if turn.masks or not with_masks:
                return number
        raise ConversationError(f"there is no {'mask' if with_masks else 'answer'} yet; ask something first")

    def _segment(self, turn: int, place: int | None) -> Segment:
        """The one that is meant: the named, the one clicked last, or the only one."""
        if place is None and self._chosen is not None:
            return self._chosen
        answer = self._conversation.answer(turn)
        segments = {segment.index: segment for segment in (*answer.segments, *answer.dropped)}
        if place is None and len(segments) == 1:
            return next(iter(segments.values()))
        if place in segments:
            return segments[place]
        raise InstructionError(
            f"say which mask, one of {', '.join(map(str, sorted(segments)))}: /click {COMMANDS['click'][0]}"
        )

    def _show(self, answer: Answer, turn: int, *, is_new: bool) -> None:
        """An answer whose words were told already, or, in JSON, all of it."""
        paths = (
            answer.save(self._out, stem=self._stem(turn)) if self._out and (answer.segments or self._as_json) else []
        )
        if self._as_json:
            print(json.dumps({"turn": turn, **answer.to_dict()}), flush=True)
            return
        terminal.show_rest(answer, paths, has_words=is_new)
        if self._in_line and answer.segments:
            terminal.show_picture(answer.overlay())

    def _stem(self, turn: int) -> str:
        """A name for the files of an answer."""
        return f"{Path(self._conversation.source).stem or 'image'}_{self._files + turn}"


def typed_lines() -> Iterator[str]:
    """Lines as a person types them, with editing, history and completion, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lisaseg"
    try:
        state.mkdir(parents=True, exist_ok=True)
        with (state / "history").open("a"):
            history = FileHistory(state / "history")
    except OSError:  # a home that cannot be written to is no reason not to talk
        history = InMemoryHistory()
    names = [f"/{name}" for name in COMMANDS]
    session = PromptSession(history=history, completer=WordCompleter(names, sentence=True), complete_while_typing=False)
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def piped_lines() -> Iterator[str]:
    """Lines of stdin as they come."""
    return iter(sys.stdin.readline, "") if sys.stdin else iter(())  # closed before the start
