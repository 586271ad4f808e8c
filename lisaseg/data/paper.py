"""The data sets of the paper by name, in the folders that the original's instructions lead to."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from lisaseg.data.index_files import expecting
from lisaseg.data.parts import Parts
from lisaseg.data.reason_seg import ReasonSeg
from lisaseg.data.refer_seg import SPLITS, Referring, load_refs
from lisaseg.data.sample import Source
from lisaseg.data.sem_seg import open_ade20k, open_cocostuff, open_mapillary
from lisaseg.data.vqa import Vqa
from lisaseg.errors import DataError

REFERRING = {
    "refclef": ("unc", ("train", "val", "testA", "testB", "testC")),
    "refcoco": ("unc", ("train", "val", "testA", "testB")),
    "refcoco+": ("unc", ("train", "val", "testA", "testB")),
    "refcocog": ("umd", ("train", "val", "test")),
    "grefcoco": ("unc", ("train", "val", "testA", "testB")),
}
"""Data sets of referring expressions: who split them for the paper, and into what."""
REASONING_SPLITS = ("train", "val", "test")
"""Parts of ReasonSeg; several are joined by `+`."""
PAPER_SOURCES = (
    "ade20k",
    "cocostuff",
    "mapillary",
    "paco_lvis",
    "pascal_part",
    *(f"{name}/{by}/{split}" for name, (by, splits) in REFERRING.items() for split in splits),
    "llava_instruct_150k",
    *(f"reasonseg/{split}" for split in REASONING_SPLITS),
)
"""What `open_paper_source` opens. `refcoco` alone is its training split, `reasonseg` too."""

_ADE20K = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
_COCO = "http://images.cocodataset.org/zips/train2017.zip"
_COCO_2014 = "http://images.cocodataset.org/zips/train2014.zip"
_COCOSTUFF = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
_MAPILLARY = "https://www.mapillary.com/dataset/vistas"
_PACO = "https://github.com/facebookresearch/paco"
_PASCAL_PART = "https://github.com/facebookresearch/VLPart/tree/main/datasets"
_REFER = "https://github.com/lichengunc/refer"
_GREFCOCO = "https://github.com/henghuiding/gRefCOCO"
_LLAVA = "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K"
_REASONSEG = "https://github.com/JIA-Lab-research/LISA#training-data-preparation"


@dataclass(frozen=True, kw_only=True)
class _Need:
    """A file or folder that a source reads: the first of the places where it may be, and where to get it."""

    places: tuple[Path, ...]
    origin: str

    def find(self) -> Path | None:
        """Where it is."""
        return next((place for place in self.places if place.exists()), None)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What a source needs, and how it is made from the places of that and the COCO pictures to leave out."""

    needs: tuple[_Need, ...]
    make: Callable[[list[Path], Collection[int]], Source]


def open_paper_source(name: str, root: Path, *, exclude: Collection[int] = frozenset(), void: bool = False) -> Source:
    """A data set of the paper.

    Args:
        name: one of `PAPER_SOURCES`; `refcoco` for `refcoco/unc/train`, `reasonseg/train+val` for several splits.
        root: the folder that the original calls `dataset`; referring expressions may lie in its `refer_seg` or in
            itself.
        exclude: numbers of COCO pictures to leave out (see `held_out_pictures`); other pictures have none.
        void: ask for Mapillary's void classes too.

    Raises:
        DataError: nothing has that name, or its files are missing or malformed.
    """
    name = full_name(name)
    recipe = _recipe(name, root, void=void)
    found = []
    for need in recipe.needs:
        place = need.find()
        if place is None:
            raise DataError(f"{name} needs {need.places[0]}, which is not there; get it from {need.origin}")
        found.append(place)
    return recipe.make(found, exclude)


def sources_in(root: Path) -> list[str]:
    """Which of `PAPER_SOURCES` have all their files and folders in a root; nothing is opened."""
    return [name for name in PAPER_SOURCES if is_in(root, name)]


def is_in(root: Path, name: str) -> bool:
    """Whether all files and folders of a source are in a root.

    Raises:
        DataError: nothing has that name.
    """
    return all(need.find() for need in _recipe(full_name(name), root, void=False).needs)


def held_out_pictures(root: Path) -> frozenset[int]:
    """Numbers of the COCO pictures that the refCOCO family validates and tests with, as far as it lies in a root.

    Raises:
        DataError: a list of references is malformed.
    """
    numbers: set[int] = set()
    for dataset, (by, _) in REFERRING.items():
        refs = _refs(root, dataset, by).find() if dataset != "refclef" else None
        if refs is not None:
            with expecting(refs, "a list of references"):
                numbers.update(int(ref["image_id"]) for ref in load_refs(refs) if ref["split"] != "train")
    return frozenset(numbers)


def full_name(name: str) -> str:
    """The name that says what is meant: `refcoco/unc/train` for `refcoco`, `reasonseg/train` for `reasonseg`.

    Raises:
        DataError: nothing has that name.
    """
    dataset, *rest = name.split("/")
    if dataset in REFERRING and not rest:
        return f"{dataset}/{REFERRING[dataset][0]}/train"
    if dataset == "reasonseg" and not rest:
        return "reasonseg/train"
    referring = dataset in REFERRING and len(rest) == 2 and re.fullmatch(r"\w+", rest[0]) and rest[1] in SPLITS
    reasoning = dataset == "reasonseg" and len(rest) == 1 and set(rest[0].split("+")) <= set(REASONING_SPLITS)
    if not (name in PAPER_SOURCES or referring or reasoning):
        raise DataError(f"there is no data set called {name!r}; known ones: {', '.join(PAPER_SOURCES)}")
    return name


def _recipe(name: str, root: Path, *, void: bool) -> _Recipe:
    dataset, *rest = name.split("/")
    if dataset in REFERRING:
        return _referring(name, root, dataset, *rest)
    if dataset == "reasonseg":
        splits = list(dict.fromkeys(rest[0].split("+")))
        folder = next(
            (place for place in (root / "reason_seg" / "ReasonSeg", root / "ReasonSeg") if place.is_dir()),
            root / "reason_seg" / "ReasonSeg",
        )
        return _Recipe(
            needs=tuple(_Need(places=(folder / split,), origin=_REASONSEG) for split in splits),
            make=lambda found, exclude: ReasonSeg(name, folder, splits),
        )
    return _whole(root, void=void)[name]


def _whole(root: Path, *, void: bool) -> dict[str, _Recipe]:
    """The data sets that are used as a whole."""
    coco = _Need(places=(root / "coco" / "train2017",), origin=_COCO)

    def need(path: str, origin: str) -> _Need:
        return _Need(places=(root / path,), origin=origin)

    return {
        "ade20k": _Recipe(
            needs=(need("ade20k/images/training", _ADE20K), need("ade20k/annotations/training", _ADE20K)),
            make=lambda found, exclude: open_ade20k(root / "ade20k"),
        ),
        "cocostuff": _Recipe(
            needs=(need("cocostuff/train2017", _COCOSTUFF), coco),
            make=lambda found, exclude: open_cocostuff(found[0], found[1], exclude),
        ),
        "mapillary": _Recipe(
            needs=tuple(
                need(f"mapillary/{path}", _MAPILLARY)
                for path in ("config_v2.0.json", "training/images", "training/v2.0/labels")
            ),
            make=lambda found, exclude: open_mapillary(root / "mapillary", void=void),
        ),
        "paco_lvis": _Recipe(
            needs=(need("vlpart/paco/annotations/paco_lvis_v1_train.json", _PACO), coco),
            make=lambda found, exclude: Parts("paco_lvis", found[0], found[1].parent, exclude),
        ),
        "pascal_part": _Recipe(
            needs=(
                need("vlpart/pascal_part/train.json", _PASCAL_PART),
                need("vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages", _PASCAL_PART),
            ),
            make=lambda found, exclude: Parts("pascal_part", found[0], found[1]),
        ),
        "llava_instruct_150k": _Recipe(
            needs=(need("llava_dataset/llava_instruct_150k.json", _LLAVA), coco),
            make=lambda found, exclude: Vqa("llava_instruct_150k", found[0], found[1], exclude),
        ),
    }


def _referring(name: str, root: Path, dataset: str, by: str, split: str) -> _Recipe:
    is_coco = dataset != "refclef"
    folder = "mscoco/images/train2014" if is_coco else "saiapr_tc-12"
    pictures = tuple(place / "images" / folder for place in _refer_roots(root))
    instances = tuple(place / dataset / "instances.json" for place in _refer_roots(root))
    return _Recipe(
        needs=(
            _refs(root, dataset, by),
            _Need(places=instances, origin=_origin(dataset)),
            _Need(
                places=(*pictures, root / "coco" / "train2014") if is_coco else pictures,
                origin=_COCO_2014 if is_coco else _REFER,
            ),
        ),
        make=lambda found, exclude: Referring(
            name, found[0], found[1], found[2], split, exclude if is_coco else frozenset()
        ),
    )


def _refs(root: Path, dataset: str, by: str) -> _Need:
    """The references, as JSON before a pickle."""
    stem = f"grefs({by})" if dataset == "grefcoco" else f"refs({by})"
    places = [place / dataset / f"{stem}{suffix}" for place in _refer_roots(root) for suffix in (".json", ".p")]
    return _Need(places=tuple(places), origin=_origin(dataset))


def _refer_roots(root: Path) -> tuple[Path, Path]:
    return root / "refer_seg", root


def _origin(dataset: str) -> str:
    return _GREFCOCO if dataset == "grefcoco" else _REFER
