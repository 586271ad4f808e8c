"""`lisaseg segment` and `lisaseg chat`: questions about pictures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lisaseg.config import CACHE_MB, AskOptions, ImageLimits, LoadOptions
from lisaseg.errors import ImageError
from lisaseg.files import is_file
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, FAILED, app, load_segmenter, require_extra

if TYPE_CHECKING:
    from lisaseg.segmenter import Segmenter
    from lisaseg.values import Answer


@app.command(name="segment")
@dataclass(frozen=True, kw_only=True)
class SegmentCommand:
    """Answer an instruction about one picture or several, with a mask for each thing meant."""

    words: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="IMAGE [IMAGE ...] INSTRUCTION",
            help="Pictures, and after them what is meant, in quotes: 'Where can I wash my hands?'",
            help_behavior_hint="(required)",
        ),
    ] = ()
    model: str = "nano"
    """`nano` (bundled), a published checkpoint (`lisa-7b`, `lisa-13b`, and each with `-explanatory`), a folder, or a
    Hugging Face hub id."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint=f"(default: {terminal.DEFAULT_OUT})")] = None
    """Folder for <stem>_overlay.png, <stem>_mask_<i>.png and <stem>.json; made where it is missing."""
    json: bool = False
    """Print one line of JSON for each picture and nothing else; write files only where --out is given."""
    format: tuple[Literal["png", "rle", "polygon"], ...] = ("png",)
    """Forms in which masks are saved, to be named after INSTRUCTION: png as files, polygon inside <stem>.json, where
    run lengths (rle) always are."""
    batch_size: int = 4
    """Pictures that are answered together."""
    load: LoadOptions = field(default_factory=LoadOptions)
    ask: AskOptions = field(default_factory=AskOptions)
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __post_init__(self) -> None:
        if len(self.words) < 2:
            given = f"only {self.words[0]!r}" if self.words else "neither"
            raise ValueError(
                f"expected IMAGE [IMAGE ...] INSTRUCTION, got {given}; put the instruction last, in quotes"
            )
        if is_file(self.words[-1]):
            raise ValueError(
                f"expected an instruction last, got the file {self.words[-1]!r}; put one after the pictures"
            )
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")

    def execute(self) -> int:
        """Shows and saves each answer as it comes; a picture that cannot be read is told and passed over."""
        images = self.words[:-1]
        segmenter = load_segmenter(self.model, self.load, self.limits)
        stems = _distinct_stems(images)
        failed = 0
        with terminal.Bar(len(images)) as bar:
            for stem, outcome in zip(stems, self._answers(segmenter, images), strict=True):
                with bar.step():
                    if isinstance(outcome, ImageError):
                        failed += 1
                        terminal.complain(str(outcome))
                    else:
                        self._deliver(outcome, stem)
        return FAILED if failed else DONE

    def _answers(self, segmenter: "Segmenter", images: Sequence[str]) -> "Iterator[Answer | ImageError]":
        """For each picture in order an answer, or why it cannot be read."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            try:
                yield from self._ask(segmenter, batch)
            except ImageError:  # one of them is bad: each for itself
                yield from (self._ask_alone(segmenter, image) for image in batch)

    def _ask(self, segmenter: "Segmenter", images: Sequence[str]) -> "list[Answer]":
        pairs = [(image, self.words[-1]) for image in images]
        return segmenter.segment_batch(pairs, batch_size=self.batch_size, options=self.ask)

    def _ask_alone(self, segmenter: "Segmenter", image: str) -> "Answer | ImageError":
        try:
            return self._ask(segmenter, [image])[0]
        except ImageError as error:
            return error

    def _deliver(self, answer: "Answer", stem: str) -> None:
        folder = self.out or (None if self.json else terminal.DEFAULT_OUT)
        paths = answer.save(folder, formats=self.format, stem=stem) if folder else []
        if self.json:
            print(json.dumps(answer.to_dict()), flush=True)
        else:
            terminal.show_answer(answer, paths, is_one_of_many=len(self.words) > 2)


@app.command(name="chat")
@dataclass(frozen=True, kw_only=True)
class ChatCommand:
    """Talk about one picture, question after question; from a pipe, each line is a question."""

    image: Annotated[Positional[str], arg(metavar="IMAGE")]
    """A picture, or a folder that `/save` wrote."""
    model: str = "nano"
    """`nano` (bundled), a published checkpoint (`lisa-7b`, `lisa-13b`, and each with `-explanatory`), a folder, or a
    Hugging Face hub id."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for overlay, masks and JSON of each answer; where pictures cannot be shown in the terminal,
    lisaseg_out unless told otherwise."""
    json: bool = False
    """Print one line of JSON for each answer and nothing else; write files only where --out is given."""
    no_preview: bool = False
    """Write answers to files instead of showing them in the terminal."""
    cache_mb: int = CACHE_MB
    """Megabytes of encoded pictures and of what was said over them that are kept."""
    load: LoadOptions = field(default_factory=LoadOptions)
    ask: AskOptions = field(default_factory=AskOptions)
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __post_init__(self) -> None:
        if self.cache_mb < 0:
            raise ValueError(f"--cache-mb must be at least 0, got {self.cache_mb}")

    def execute(self) -> int:
        """Talks until there are no more lines; a person's mistakes are no failure, a pipe's are."""
        is_typed = terminal.is_typed() and not self.json
        if is_typed:
            require_extra("chat", ("prompt_toolkit", "textual_image"))
        in_line = is_typed and not self.no_preview and terminal.can_show_pictures()
        out = self.out or (None if self.json or in_line else terminal.DEFAULT_OUT)
        from lisaseg.surfaces.chat import Chat, piped_lines, typed_lines

        load = partial(load_segmenter, options=self.load, limits=self.limits, cache_mb=self.cache_mb)
        chat = Chat(load, self.model, self.image, options=self.ask, as_json=self.json, in_line=in_line, out=out)
        if is_typed:
            terminal.note("Ask about the picture; /help shows what else there is, Ctrl-D ends.")
        went_well = chat.run(typed_lines() if is_typed else piped_lines(), stops_at_interrupt=not is_typed)
        return DONE if went_well or is_typed else FAILED


def _distinct_stems(images: Sequence[str]) -> list[str]:
    """A stem for each picture's results: its own, numbered where another has it, so that none overwrites another."""
    stems: list[str] = []
    taken: set[str] = set()
    for image in images:
        own = stem = Path(image).stem or "image"
        number = 1
        while stem.casefold() in taken:  # Mac and Windows do not tell Dog from dog
            number += 1
            stem = f"{own}_{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
