"""Writes a tiny folder of each format that people bring: a red box in a grey picture of 80x60, called a gizmo."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

BOX = (10, 20, 39, 49)
"""First and last column and row of the red box: 30x30 pixels."""


def picture() -> np.ndarray:
    """HWC BGR."""
    image = np.full((60, 80, 3), 90, np.uint8)
    image[20:50, 10:40] = (40, 40, 220)
    return image


def inside() -> np.ndarray:
    """The box's mask, 0 and 1."""
    mask = np.zeros((60, 80), np.uint8)
    mask[20:50, 10:40] = 1
    return mask


def corners() -> list[list[float]]:
    x0, y0, x1, y1 = BOX
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture())


def write_json(path: Path, record: Any) -> None:
    path.write_text(json.dumps(record, ensure_ascii=False), "utf-8")


def shape(label: str, points: list[list[float]] | None = None, kind: str = "polygon") -> dict[str, Any]:
    return {"label": label, "points": points or corners(), "shape_type": kind}


def labelme(folder: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    """One picture, `a.png`, with its labels."""
    write_picture(folder / "a.png")
    write_json(folder / "a.json", {"imagePath": "a.png", "shapes": list(shapes or [shape("gizmo")]), **more})
    return folder


def encoded_picture() -> str:
    return base64.b64encode(cv2.imencode(".png", picture())[1].tobytes()).decode()


def coco(folder: Path, *annotations: dict[str, Any]) -> Path:
    """One picture in `images/`, of the categories gizmo and widget."""
    write_picture(folder / "images" / "a.png")
    polygon = [float(value) for corner in [[10, 20], [40, 20], [40, 50], [10, 50]] for value in corner]
    plain = {"image_id": 1, "category_id": 1, "segmentation": [polygon], "iscrowd": 0}
    record = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "gizmo"}, {"id": 2, "name": "widget"}],
        "annotations": [{"id": k, **plain, **one} for k, one in enumerate(annotations or ({},), 1)],
    }
    write_json(folder / "instances.json", record)
    return folder


def masks(folder: Path, values: np.ndarray | None = None) -> Path:
    """One picture, one mask, and a table."""
    write_picture(folder / "a.png")
    cv2.imwrite(str(folder / "a_mask.png"), inside() * 255 if values is None else values)
    (folder / "prompts.csv").write_text("image,mask,text\na.png,a_mask.png,gizmo\n")
    return folder


def jsonl(folder: Path, **record: Any) -> Path:
    """One line about one picture."""
    from lisaseg.images.masks import to_rle

    write_picture(folder / "a.png")
    messages = [{"role": "user", "content": "Gizmo?"}, {"role": "assistant", "content": "Here: [SEG]."}]
    line = {"image": "a.png", "messages": messages, "masks": [to_rle(inside() == 1)], **record}
    (folder / "data.jsonl").write_text(json.dumps(line) + "\n")
    return folder
