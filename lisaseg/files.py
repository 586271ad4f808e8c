"""Writing results: a file is either whole or not there."""

import os
import tempfile
from pathlib import Path

from lisaseg.errors import OutputError


def make_folder(path: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}; choose another with --out") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file by way of a temporary one beside it, so that nothing half-written is ever seen.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, ...
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder with --out") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
