"""What all commands share: exit codes, how a model is loaded with a sign of life, and what a missing extra says."""

import importlib.util
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tyro.extras import SubcommandApp

from lisaseg.config import BUNDLED, CACHE_MB, ImageLimits, LoadOptions
from lisaseg.errors import MissingExtraError
from lisaseg.surfaces import terminal

if TYPE_CHECKING:
    from lisaseg.segmenter import Segmenter

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: usage errors are found while the flags are read, 130 is Ctrl-C as in every shell, 1 is all the rest."""

app = SubcommandApp()
"""All commands of `lisaseg`; modules add theirs when they are imported."""


@runtime_checkable
class Command(Protocol):
    """A subcommand: a frozen dataclass whose fields are its flags."""

    def execute(self) -> int:
        """Does it, and returns the exit code."""
        ...


def load_segmenter(model: str, options: LoadOptions, limits: ImageLimits, cache_mb: int = CACHE_MB) -> "Segmenter":
    """A model, with a sign of life while it loads."""
    is_small, is_watched = model in BUNDLED, sys.stderr.isatty()
    with terminal.waiting(f"Loading {model}", is_shown=is_small):  # others show bars with the time left
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.segmenter import Segmenter

        quieten_libraries(keep_downloads=is_watched, keep_loading=is_watched and not is_small)
        return Segmenter.load(model, limits=limits, cache_mb=cache_mb, **vars(options))


def require_extra(extra: str, packages: Sequence[str]) -> None:
    """Raises MissingExtraError where a package of an extra is not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(f"this command needs {' and '.join(missing)}: pip install 'lisaseg[{extra}]'")
