"""A run as a page that needs nothing else: the table, and the worst and best predictions over their pictures."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lisaseg.data.sample import Sample, Source
from lisaseg.errors import LisaError
from lisaseg.evaluation.benchmarks import describe
from lisaseg.evaluation.questions import questions_of, truths_of
from lisaseg.evaluation.records import Record, rule_of
from lisaseg.evaluation.scores import Evaluation, Score
from lisaseg.files import make_folder, write_atomic
from lisaseg.images.draw import PALETTE, overlay
from lisaseg.images.masks import from_rle

SHOWN = 12
"""Worst predictions that are shown, and best ones."""
_SIDE = 480
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; border-radius: 4px } figcaption { font-size: .9em }
.truth, .predicted { padding: 0 .4em; border-radius: 3px; color: #fff }
small { color: #666 }
"""
TITLES = {
    "giou_lisa": "gIoU, LISA's rule",
    "ciou_lisa": "cIoU, LISA's rule",
    "giou_seg_zero": "gIoU, Seg-Zero's rule",
    "ciou_seg_zero": "cIoU, Seg-Zero's rule",
    "miou": "mIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "map": "mAP",
    "ap50": "AP50",
    "ap75": "AP75",
}
"""Figures as people write them; Pr@0.5 is like its key."""


def title_of(figure: str) -> str:
    """A figure's name for people."""
    return TITLES.get(figure, figure.replace("pr@", "Pr@"))


def percent(share: float) -> str:
    """52.94, as papers print it; a dash for what is no number."""
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def write_report(evaluations: Sequence[Evaluation], sources: Mapping[str, Source], out: Path) -> None:
    """Writes `report.json` and `report.html`.

    Args:
        evaluations: what was found.
        sources: the benchmarks' pictures by the benchmarks' names.
        out: folder.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(out)
    record = {"evaluations": [evaluation.to_dict() for evaluation in evaluations]}
    write_atomic(out / "report.json", json.dumps(record, indent=2).encode())
    write_atomic(out / "report.html", page(evaluations, sources).encode("utf-8", "replace"))


def page(evaluations: Sequence[Evaluation], sources: Mapping[str, Source]) -> str:
    """The report's HTML, pictures and all."""
    model = str(evaluations[0].header["model"]) if evaluations else ""
    name = html.escape(model)
    body = "".join(_section(one, sources.get(one.benchmark)) for one in evaluations)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1>{body}</body></html>"
    )


def _section(evaluation: Evaluation, source: Source | None) -> str:
    header = evaluation.header
    told = f"protocol {header['protocol']}, scored by the rule of {header['rule']}; 95 % intervals over pictures"
    parts = [f"<h2>{html.escape(evaluation.benchmark)}</h2><p>{html.escape(told)}</p>", _table(evaluation.scores)]
    if evaluation.skipped:
        items = "".join(f"<li>{html.escape(one)}</li>" for one in evaluation.skipped)
        parts.append(f"<h3>Left out</h3><ul>{items}</ul>")
    if source is not None:
        worst, best = _extremes(evaluation)
        parts += [
            _cards(f"The {len(chosen)} {what}", chosen, evaluation, source)
            for what, chosen in (("worst", worst), ("best", best))
            if chosen
        ]
    return "".join(parts)


def _table(scores: Sequence[Score]) -> str:
    figures = list(dict.fromkeys(figure for score in scores for figure in score.figures))
    heads = ["", "pictures", "questions", "gIoU", "cIoU", *map(title_of, figures)]
    rows = [
        [
            score.name,
            str(score.pictures),
            str(score.questions),
            *(
                f"{percent(value)} <small>[{percent(low)}, {percent(high)}]</small>"
                for value, (low, high) in ((score.giou, score.giou_interval), (score.ciou, score.ciou_interval))
            ),
            *(percent(score.figures.get(figure, math.nan)) for figure in figures),
        ]
        for score in scores
    ]
    head = "".join(f"<th>{html.escape(one)}</th>" for one in heads)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, *cells in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _extremes(evaluation: Evaluation) -> tuple[list[Record], list[Record]]:
    """The worst, and the best of the rest."""
    score = rule_of(evaluation.header)
    ordered = sorted(evaluation.records, key=lambda record: score(record.counts).iou)
    worst = ordered[:SHOWN]
    return worst, ordered[len(worst) :][-SHOWN:][::-1]


def _cards(title: str, records: Sequence[Record], evaluation: Evaluation, source: Source) -> str:
    legend = (
        f'<span class="truth" style="background:{_css(0)}">truth</span> '
        f'<span class="predicted" style="background:{_css(1)}">predicted</span>'
    )
    score = rule_of(evaluation.header)
    cards = []
    for record in records:
        picture = _picture(record, evaluation, source)
        if picture is not None:
            caption = f"{html.escape(record.text)}<br><small>{html.escape(record.picture)}</small>"
            cards.append(
                f'<figure><img alt="" src="data:image/jpeg;base64,{picture}"><figcaption>'
                f"<b>{score(record.counts).iou:.3f}</b> {caption}</figcaption></figure>"
            )
    return f'<h3>{title} {legend}</h3><div class="cards">{"".join(cards)}</div>'


def _css(color: int) -> str:
    return f"rgb{PALETTE[color]}"


def _picture(record: Record, evaluation: Evaluation, source: Source) -> str | None:
    """Truth and prediction over the picture, as base64 of a JPEG; None where the picture can no longer be read."""
    try:
        sample = source[record.index]
        first = describe(evaluation.benchmark, source).first_text_only
        question = questions_of(sample, first_text_only=first)[record.question]
        truth = truths_of(sample, [question])[0] == 1
    except (LisaError, IndexError):
        return None
    return _jpeg(sample, truth, from_rle(record.rle))


def _jpeg(sample: Sample, truth: np.ndarray, predicted: np.ndarray) -> str:
    height, width = sample.image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    masks = [
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in (truth, predicted)
    ]
    buffer = io.BytesIO()
    drawn: Image.Image = overlay(image, masks, opacity=0.4)
    drawn.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
