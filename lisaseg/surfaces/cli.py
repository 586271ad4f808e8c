"""The command `lisaseg`: flags become the frozen values of `config`, results go to stdout, everything else to stderr.

Nothing heavy is imported before a command is carried out, so that help answers at once.
"""

import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr

from tyro.conf import DisallowNone, FlagCreatePairsOff, OmitArgPrefixes

from lisaseg.errors import LisaError
from lisaseg.surfaces import (  # each adds its commands to `app`
    answer_commands,  # noqa: F401
    data_commands,  # noqa: F401
    evaluate_commands,  # noqa: F401
    model_commands,  # noqa: F401
    terminal,
    train_commands,  # noqa: F401
)
from lisaseg.surfaces.commands import FAILED, INTERRUPTED, Command, app


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command line, by default the process's own, and returns its exit code.

    What a user can mend is one line on stderr; a bug of ours keeps its traceback.
    """
    terminal.survive_any_text()
    try:
        code = _parse(sys.argv[1:] if argv is None else argv).execute()
        sys.stdout.flush()
    except SystemExit as end:  # the help was shown, or the usage was wrong
        return end.code if isinstance(end.code, int) else FAILED
    except LisaError as error:
        terminal.complain(str(error))
        return FAILED
    except KeyboardInterrupt as interrupt:
        terminal.complain(str(interrupt) or "results written so far are kept", "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has seen enough
        terminal.forget_stdout()
        return FAILED
    except OSError as error:  # the output itself, such as a full disk behind a redirection
        terminal.forget_stdout()
        terminal.complain(f"cannot write {error.filename or 'the output'}: {error.strerror or error}")
        return FAILED
    return code


def _parse(argv: Sequence[str]) -> Command:
    """The command of a command line; an option that its dataclass refuses is told in one line, the rest by tyro."""
    shorthands = {(): ("--help",), ("--version",): ("version",)}
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return app.cli(
                prog="lisaseg",
                description="Segment what an instruction means: words and a mask for each thing meant.",
                args=shorthands.get(tuple(argv), tuple(argv)),
                config=(OmitArgPrefixes, FlagCreatePairsOff, DisallowNone),
            )
    except SystemExit as end:
        refusal = _refusal(end)
        if refusal is None:
            sys.stderr.write(told.getvalue())
        else:
            terminal.complain(str(refusal))
        raise


def _refusal(error: BaseException | None) -> ValueError | None:
    """What a `__post_init__` had against an option, where that is what ended the parsing."""
    while error is not None:
        frames = traceback.walk_tb(error.__traceback__)
        if isinstance(error, ValueError) and any(frame.f_code.co_name == "__post_init__" for frame, _ in frames):
            return error
        error = error.__context__
    return None
