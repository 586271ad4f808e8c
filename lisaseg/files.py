"""Writing results: a file is either whole or not there."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from lisaseg.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False too for what cannot be a path, such as a text of 5,000 letters."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether there is a file, in the same way."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def make_folder(path: Path) -> None:
    """Makes a folder and its parents; one that is there already is fine.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {_reason(error)}") from error


def remove(path: Path) -> None:
    """Removes a file.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"cannot remove {path}, a result of an earlier run: {_reason(error)}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file by way of a temporary one beside it, so that nothing half-written is ever seen, Ctrl-C or not.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, ...; what was at the path before stays.
    """
    temporary = path.with_name(f".lisaseg-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # after a success it is gone already
            temporary.unlink()


def _reason(error: OSError) -> str:
    """What happened, in the system's words, and what to do."""
    what = error.strerror or str(error)
    if error.errno in _FULL:
        return f"{what}; free some space or choose another folder"
    return f"{what}; choose another folder"
