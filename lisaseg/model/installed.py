"""Which models are on this machine, told from file names and headers alone: no weights are read and no torch."""

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lisaseg.config import BUNDLED


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """A model that needs no network."""

    name: str
    """What `--model` takes."""
    where: str
    """`bundled` or `hub cache`."""
    bytes: int
    """Size of its files."""
    parameters: int | None
    """How many numbers its weights are; None where they cannot be read."""


def installed_models() -> list[InstalledModel]:
    """The bundled models, then those of our layout in the hub's local cache, by name."""
    bundled = {name: Path(str(files("lisaseg").joinpath(name))) for name in BUNDLED}
    return [
        _measure(name, where, folder)
        for where, folders in (("bundled", bundled), ("hub cache", _cached()))
        for name, folder in sorted(folders.items())
        if _is_ours(folder)
    ]


def _cached() -> dict[str, Path]:
    """Folders of the newest revision of every model in the hub's cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model" and repo.revisions]
    except CacheNotFound:
        return {}
    return {
        repo.repo_id: max(repo.revisions, key=lambda revision: revision.last_modified).snapshot_path for repo in repos
    }


def _is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "lisaseg"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _measure(name: str, where: str, folder: Path) -> InstalledModel:
    weights = sorted(folder.glob("*.safetensors"))
    try:
        parameters = sum(map(_count_parameters, weights)) if weights else None
    except (OSError, ValueError):
        parameters = None
    return InstalledModel(
        name=name,
        where=where,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        parameters=parameters,
    )


def _count_parameters(path: Path) -> int:
    """From the header of a safetensors file: its length in 8 bytes, then JSON. ValueError where there is none."""
    with path.open("rb") as file:
        length = min(int.from_bytes(file.read(8), "little"), path.stat().st_size)
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
