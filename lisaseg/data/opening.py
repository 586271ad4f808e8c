"""Data by name: a folder or file of one's own, or a published data set."""

from pathlib import Path

from lisaseg.data.paper import open_paper_source
from lisaseg.data.sample import Source
from lisaseg.errors import DataError


def open_source(name: str, root: Path | None = None) -> Source:
    """The samples of that name."""
    if root is None:
        raise DataError(f"there is no data {name}")
    return open_paper_source(name, root)
