"""Writes a tiny folder of every data set of the paper, in the layout and formats of the original.

All pictures are 16 pixels wide and 12 high. `python make_paper_data.py FOLDER` leaves one to look at.
"""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 12, 16
LEFT = [0, 0, 8, 0, 8, 12, 0, 12]
"""COCO polygon of the left half."""
MIDDLE = [4, 0, 12, 0, 12, 12, 4, 12]
"""COCO polygon of the middle half: overlaps the left one."""
COCO_IDS = (1, 2, 3, 4)


def write_paper_data(root: Path) -> Path:
    """Everything, below a folder; returns it."""
    for number in COCO_IDS:
        write_picture(root / "coco" / "train2017" / f"{number:012}.jpg", number)
        write_picture(root / "refer_seg/images/mscoco/images/train2014" / coco_name(number), number)
    _write_ade20k(root / "ade20k")
    _write_cocostuff(root / "cocostuff" / "train2017")
    _write_mapillary(root / "mapillary")
    _write_parts(root / "vlpart")
    _write_referring(root / "refer_seg")
    _write_vqa(root / "llava_dataset")
    _write_reason_seg(root / "reason_seg" / "ReasonSeg")
    return root


def coco_name(number: int) -> str:
    """As COCO called its pictures in 2014."""
    return f"COCO_train2014_{number:012}.jpg"


def write_picture(path: Path, shade: int = 0) -> None:
    """A plain JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 40 * shade % 255, np.uint8))


def write_map(path: Path, *columns: int) -> None:
    """A PNG of one byte a pixel, its columns in equal bands of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = np.repeat(np.array(columns, np.uint8), WIDTH // len(columns))
    assert cv2.imwrite(str(path), np.tile(row, (HEIGHT, 1)))


def write_json(path: Path, value: Any) -> None:
    """As UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def image_record(number: int, file: str) -> dict[str, Any]:
    """COCO's record of a picture."""
    return {"id": number, "file_name": file, "height": HEIGHT, "width": WIDTH}


def ref(picture: int, annotation: Any, split: str, *sentences: str) -> dict[str, Any]:
    """REFER's record of a reference."""
    return {
        "image_id": picture,
        "ann_id": annotation,
        "split": split,
        "sentences": [{"sent": sentence, "raw": sentence} for sentence in sentences],
    }


def write_refs(path: Path, refs: list[dict[str, Any]]) -> None:
    """Pickled as the published files are, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_json(path, refs)
    else:
        path.write_bytes(pickle.dumps(refs, protocol=2))


def write_instances(path: Path, images: list[dict[str, Any]], shapes: dict[int, Any]) -> None:
    """COCO's annotations, by their numbers."""
    annotations = [{"id": number, "segmentation": shape} for number, shape in shapes.items()]
    write_json(path, {"images": images, "annotations": annotations})


def shape(label: str, *corners: tuple[float, float]) -> dict[str, Any]:
    """A labelled polygon, as labelme writes it."""
    return {"label": label, "points": [list(corner) for corner in corners]}


def write_reasoning(
    folder: Path, name: str, texts: list[str], *shapes: dict[str, Any], is_sentence: bool = True
) -> None:
    """A picture and its JSON file."""
    write_picture(folder / f"{name}.jpg", len(name))
    write_json(folder / f"{name}.json", {"text": texts, "is_sentence": is_sentence, "shapes": list(shapes)})


def _write_ade20k(folder: Path) -> None:
    for name, columns in (("ADE_train_1", (0, 1, 3, 3)), ("ADE_train_2", (0, 0)), ("ADE_train_3", (150, 255))):
        write_picture(folder / "images" / "training" / f"{name}.jpg")
        write_map(folder / "annotations" / "training" / f"{name}.png", *columns)


def _write_cocostuff(folder: Path) -> None:
    write_map(folder / "000000000001.png", 0, 95, 181, 255)
    write_map(folder / "000000000004.png", 17, 0)


def _write_mapillary(folder: Path) -> None:
    labels = [
        {"name": "animal--bird", "readable": "Bird"},
        {"name": "object--sign", "readable": "Sign"},
        {"name": "object--sign--back", "readable": "Sign"},
        {"name": "void--unlabeled", "readable": "Unlabeled"},
    ]
    write_json(folder / "config_v2.0.json", {"labels": labels})
    write_picture(folder / "training" / "images" / "a.jpg")
    write_map(folder / "training" / "v2.0" / "labels" / "a.png", 0, 1, 2, 3)


def _write_parts(folder: Path) -> None:
    categories = [{"id": 1, "name": "dog_(animal):head_(front)"}, {"id": 2, "name": "mug"}]
    annotations = [
        {"image_id": 1, "category_id": 1, "segmentation": [LEFT]},
        {"image_id": 1, "category_id": 2, "segmentation": [MIDDLE]},
        {"image_id": 1, "category_id": 1, "segmentation": [MIDDLE]},
        {"image_id": 4, "category_id": 2, "segmentation": [LEFT]},
    ]
    images = [image_record(number, f"train2017/{number:012}.jpg") for number in COCO_IDS]
    write_json(
        folder / "paco" / "annotations" / "paco_lvis_v1_train.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    pascal = folder / "pascal_part"
    write_picture(pascal / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000001.jpg")
    write_json(
        pascal / "train.json",
        {
            "images": [image_record(1, "2008_000001.jpg")],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [LEFT]}],
            "categories": [{"id": 1, "name": "cat:ear"}],
        },
    )


def _write_referring(folder: Path) -> None:
    images = [image_record(number, coco_name(number)) for number in COCO_IDS]
    shapes = {11: [LEFT, MIDDLE], 21: [LEFT], 31: [LEFT], 41: [MIDDLE], 42: [LEFT]}
    splits = {
        "refcoco/refs(unc).p": [
            ref(1, 11, "train", " The LEFT dog ", "dog"),
            ref(4, 41, "train", "middle"),
            ref(2, 21, "val", "left one"),
            ref(1, 11, "train", "it"),
            ref(3, 31, "testA", "woman"),
        ],
        "refcoco+/refs(unc).p": [ref(1, 11, "val", "dog"), ref(4, 41, "train", "middle")],
        "refcocog/refs(umd).p": [ref(2, 21, "test", "the thing on the left"), ref(4, 41, "train", "the middle")],
        "grefcoco/grefs(unc).json": [
            ref(4, [-1], "train", "the unicorn"),
            ref(4, [41, 42], "train", "everything"),
            ref(3, [31], "testB", "woman"),
        ],
    }
    for file, refs in splits.items():
        write_refs(folder / file, refs)
        write_instances((folder / file).parent / "instances.json", images, shapes)
    write_picture(folder / "images" / "saiapr_tc-12" / "00" / "images" / "25.jpg")
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)]}
    write_refs(folder / "refclef" / "refs(unc).p", [ref(1, 1, "train", "sky"), ref(1, 1, "testAB", "blue")])
    write_instances(folder / "refclef" / "instances.json", [image_record(1, "00/images/25.jpg")], {1: [runs]})


def _write_vqa(folder: Path) -> None:
    turns = [
        {"from": "human", "value": "What is it?\n<image>"},
        {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    records = [
        {"id": "1", "image": "000000000001.jpg", "conversations": turns},
        {"id": "4", "image": "000000000004.jpg", "conversations": turns[:2]},
    ]
    write_json(folder / "llava_instruct_150k.json", records)


def _write_reason_seg(folder: Path) -> None:
    square = ((2, 2), (9, 2), (9, 9), (2, 9))
    write_reasoning(folder / "train", "a", ["What barks?", "Who guards?", "A pet?"], shape("target", *square))
    write_reasoning(folder / "train", "b", ["The Left Thing"], shape("target", *square), is_sentence=False)
    write_reasoning(folder / "val", "c", ["What barks?"], shape("target", *square), shape("ignore", (12, 2), (14, 5)))
    write_reasoning(folder / "test", "d", ["What barks?"])
    write_json(folder / "explanatory" / "train.json", [{"image": "a.jpg", "query": "unused", "outputs": "Dogs bark."}])


if __name__ == "__main__":
    print(write_paper_data(Path(sys.argv[1])))
