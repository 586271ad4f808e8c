"""How things look in a terminal: answers and tables on stdout; progress and complaints on stderr."""

import io
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from PIL import Image

    from lisaseg.evaluation.nano import Report
    from lisaseg.model.known import KnownModel
    from lisaseg.model.summary import Summary
    from lisaseg.values import Answer, Segment

Item = TypeVar("Item")

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
LONGEST_PHRASE = 48
"""Letters of a phrase that are shown; the JSON has all of them."""
LONGEST_LINE = 72
"""Columns that a picture takes at most."""
DEFAULT_OUT = Path("lisaseg_out")
"""Where results are written unless told otherwise."""


def complain(message: str, kind: str = "error") -> None:
    """One line on stderr, whatever line breaks the message has."""
    ERR.print(Text.assemble((f"{kind}:", "bold red"), " ", " ".join(message.split())))


def waiting(message: str, *, is_shown: bool = True) -> AbstractContextManager:
    """A spinner on stderr while a block runs, where a person is watching."""
    return ERR.status(Text(message)) if is_shown and ERR.is_terminal else nullcontext()


def show_answer(answer: "Answer", paths: Sequence[Path], *, is_one_of_many: bool) -> None:
    """The answer's words, a line for each segment, and the first of the paths, which is the overlay."""
    if is_one_of_many:
        OUT.print(Text(answer.source, "bold"))
    OUT.print(Text.assemble(answer.text, "  " if answer.text and not answer.segments else "", _remark(answer)))
    _show_segments(answer, paths)


@contextmanager
def telling() -> Generator[Callable[[str], None], None, None]:
    """Gives a function that shows further words of an answer at once; their line ends with the block, come what may."""
    has_begun = False

    def say(words: str) -> None:
        nonlocal has_begun
        has_begun = True
        OUT.print(Text(words), end="")
        OUT.file.flush()

    try:
        yield say
    finally:
        if has_begun:
            OUT.print()


def show_rest(answer: "Answer", paths: Sequence[Path], *, has_words: bool) -> None:
    """What follows the words of an answer, which have been said already."""
    if has_words and (remark := _remark(answer)):
        OUT.print(remark)
    if has_words and answer.forgotten:
        OUT.print(Text(f"(the oldest {answer.forgotten} turns no longer fit and were forgotten)", "dim"))
    _show_segments(answer, paths)


def note(message: str) -> None:
    """One line on stderr about what was done."""
    ERR.print(Text(message, "dim"))


def show_commands(commands: Mapping[str, tuple[str, str]], *, is_aside: bool) -> None:
    """A table of commands with their arguments; aside is stderr."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, (arguments, purpose) in commands.items():
        table.add_row(Text(f"/{name} {arguments}"), purpose)
    (ERR if is_aside else OUT).print(table)


def is_typed() -> bool:
    """Whether a person types what is read and sees what is printed."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def can_show_pictures() -> bool:
    """Whether pictures can be drawn in this terminal; asks the terminal what it understands, so once and early."""
    if not OUT.is_terminal or OUT.is_dumb_terminal:
        return False
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    import textual_image.renderable

    return textual_image.renderable.Image is not None


def show_picture(picture: "Image.Image") -> None:
    """A picture in the terminal: sixels, kitty's protocol, or half blocks, whatever it understands."""
    from textual_image.renderable import Image as Shown

    rows = max(8, round(0.6 * OUT.height))
    width = max(1, min(OUT.width, LONGEST_LINE, 2 * rows * picture.width // picture.height))
    OUT.print(Shown(picture, width=width, height="auto"))


def _show_segments(answer: "Answer", paths: Sequence[Path]) -> None:
    width = max((len(_clip(segment.phrase)) for segment in answer.segments), default=0)
    for segment in answer.segments:
        OUT.print(_line(segment, width))
    if answer.dropped:
        phrases = ", ".join(f"{_clip(segment.phrase)} ({segment.score:.2f})" for segment in answer.dropped)
        OUT.print(Text(f"dropped, too faint or too small: {phrases}", "dim"))
    if paths:
        OUT.print(Text.assemble(("overlay ", "dim"), str(paths[0])))


def show_models(models: "Sequence[KnownModel]") -> None:
    """A table of models."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for heading in ("where", "size", "parameters"):
        table.add_column(heading, justify="left" if heading == "where" else "right", no_wrap=True)
    for model in models:
        parameters = "unknown" if model.parameters is None else f"{model.parameters / 1e6:,.1f} M"
        size = "" if model.bytes is None else f"{model.bytes / 1e6:,.1f} MB"
        table.add_row(Text(model.name), model.where, size, parameters)
    OUT.print(table)


def show_summary(summary: "Summary") -> None:
    """Blocks of figures: what it is, its parts, its tokens, and what it takes."""
    OUT.print(Text.assemble((summary.name, "bold"), "  ", (summary.folder, "dim")))
    for part in ("language_model", "vision_tower", "segmenter"):
        figures = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in getattr(summary, part).items())
        OUT.print(f"  {part.replace('_', ' '):<16}{figures}")
    tokens = ", ".join(f"{token} {number}" for token, number in summary.tokens.items())
    OUT.print(
        Text(f"  {'tokens':<16}{tokens}; {summary.vocabulary:,} in all, prompts up to {summary.longest_prompt:,}")
    )
    OUT.print(f"  {'template':<16}{summary.template}")
    parts = ", ".join(f"{name} {count / 1e6:,.1f} M" for name, count in summary.parameters.items())
    OUT.print(Text(f"  {'parameters':<16}{sum(summary.parameters.values()) / 1e6:,.1f} M: {parts}"))
    if summary.stored is not None and summary.bytes_on_disk is not None:
        stored = ", ".join(f"{count / 1e6:,.1f} M in {dtype}" for dtype, count in summary.stored.items())
        OUT.print(f"  {'stored':<16}{stored}; {summary.bytes_on_disk / 1e9:,.2f} GB of files")
    else:
        OUT.print(f"  {'stored':<16}weights are not on this machine")
    table = Table(box=None, pad_edge=False, title="Memory, estimated", title_justify="left")
    table.add_column("precision")
    for heading in ("weights", "one answer", "together"):
        table.add_column(heading, justify="right")
    for name, needs in summary.memory.items():
        table.add_row(name, *(f"{size / 1e9:,.2f} GB" for size in (needs.weights, needs.working, needs.total)))
    OUT.print(table)


def tracked(items: Sequence[Item], name: str) -> Iterator[Item]:
    """The items one by one, with a bar, the rate and the time left on stderr where a person is watching."""
    if not ERR.is_terminal:
        yield from items
        return
    with _progress(name) as progress:
        yield from progress.track(items)


def show_scores(report: "Report") -> None:
    """A table with a row for each set of questions."""
    table = Table(box=None, pad_edge=False, title=f"{report.model}", title_justify="left")
    table.add_column("set")
    for heading in ("questions", "gIoU", "cIoU", "best constant mask", "ratio", "without mask"):
        table.add_column(heading, justify="right")
    for row in report.scores:
        ratio = row.giou / row.constant_giou if row.constant_giou else float("nan")
        figures = (row.giou, row.ciou, row.constant_giou)
        table.add_row(
            row.name, str(row.questions), *(f"{figure:.3f}" for figure in figures), f"{ratio:.1f}", f"{row.refused:.0%}"
        )
    OUT.print(table)


class Bar:
    """Progress over several pictures on stderr, with the rate and the time left; nothing where nobody is watching."""

    def __init__(self, total: int):
        self._progress = None
        if total > 1 and ERR.is_terminal:
            self._progress = _progress("pictures", transient=True)
            self._task = self._progress.add_task("pictures", total=total)

    def __enter__(self) -> "Bar":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress:
            self._progress.live.transient = False  # the last state stays
            self._progress.stop()

    @contextmanager
    def step(self) -> Generator[None, None, None]:
        """Counts one picture, and makes room for what the block prints about it."""
        if not self._progress:
            yield
            return
        self._progress.stop()
        yield
        self._progress.advance(self._task)
        self._progress.start()


def _progress(name: str, *, transient: bool = False) -> Progress:
    """A bar on stderr with the count, the rate and the time left."""
    columns = BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(elapsed_when_finished=True)
    return Progress(TextColumn(name), *columns, console=ERR, transient=transient)


class _Rate(ProgressColumn):
    """Pictures per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", "progress.data.speed")


def survive_any_text() -> None:
    """What the terminal's encoding cannot say is escaped, such as file names in another encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def forget_stdout() -> None:
    """After a broken pipe: so that the interpreter's last flush does not complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _remark(answer: "Answer") -> Text:
    """What must be said where there are no words, or no masks."""
    if answer.text and answer.segments:
        return Text()
    masks = {0: "no mask", 1: "1 mask"}.get(len(answer.segments), f"{len(answer.segments)} masks")
    return Text(f"({masks})" if answer.text else f"({masks}, no words)", "dim")


def _line(segment: "Segment", width: int) -> Text:
    """Swatch in the overlay's colour, index, phrase, score, box and area."""
    from lisaseg.images.draw import PALETTE

    red, green, blue = PALETTE[segment.index % len(PALETTE)]
    x0, y0, x1, y1 = segment.bbox
    return Text.assemble(
        ("#" if OUT.options.ascii_only else "■", f"rgb({red},{green},{blue})"),
        f" {segment.index}  {_clip(segment.phrase):<{width}}",
        ("  score ", "dim"),
        f"{segment.score:.2f}",
        ("  box ", "dim"),
        f"{x0},{y0} – {x1},{y1}",
        ("  area ", "dim"),
        f"{segment.area:,} px",
    )


def _clip(phrase: str) -> str:
    return phrase if len(phrase) <= LONGEST_PHRASE else f"{phrase[: LONGEST_PHRASE - 1].rstrip()}…"
