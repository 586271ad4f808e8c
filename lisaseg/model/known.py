"""Which models there are to use, told from file names and headers alone: no weights are read and no torch."""

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lisaseg.config import BUNDLED, OFFICIAL


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model by name, and where it is."""

    name: str
    """What `--model` takes."""
    where: str
    """`bundled`, `hub cache`, or `hub` for a published one that is not fetched yet."""
    bytes: int | None
    """Size of its files; None where they are not here."""
    parameters: int | None
    """How many numbers its weights are; None where they cannot be read."""


def known_models() -> list[KnownModel]:
    """The bundled models, those that can be read in the hub's local cache, and published ones not fetched yet."""
    bundled = {name: Path(str(files("lisaseg").joinpath(name))) for name in BUNDLED}
    short_names = {repo: name for name, repo in OFFICIAL.items()}
    cached = {short_names.get(repo, repo): folder for repo, folder in _cached().items() if _is_readable(folder)}
    return [
        *(_measure(name, "bundled", folder) for name, folder in bundled.items()),
        *(_measure(name, "hub cache", folder) for name, folder in sorted(cached.items())),
        *(KnownModel(name=name, where="hub", bytes=None, parameters=None) for name in OFFICIAL if name not in cached),
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


def _is_readable(folder: Path) -> bool:
    """Whether it is of our layout or a published LISA."""
    try:
        record = json.loads((folder / "config.json").read_text("utf-8"))
        return record["model_type"] == "lisaseg" or record["architectures"] == ["LISAForCausalLM"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _measure(name: str, where: str, folder: Path) -> KnownModel:
    weights = sorted(folder.glob("*.safetensors"))
    try:
        parameters = sum(map(_count_parameters, weights)) if weights else None
    except (OSError, ValueError):
        parameters = None
    return KnownModel(
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
