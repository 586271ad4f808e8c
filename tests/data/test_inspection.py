from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lisaseg.data.inspection import check, show
from lisaseg.data.opening import open_source
from lisaseg.errors import DataError


@pytest.fixture
def mixed(own: ModuleType, tmp_path: Path) -> Path:
    """A good picture, a damaged one, one without labels, and one whose polygon lies outside."""
    folder = own.labelme(tmp_path / "d")
    own.write_picture(folder / "b.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    own.write_json(folder / "b.json", {"imagePath": "b.png", "shapes": [own.shape("gizmo")]})
    for name, shapes in (("c", []), ("d", [own.shape("far", [[900, 900], [950, 900], [950, 950]])])):
        own.write_picture(folder / f"{name}.png")
        own.write_json(folder / f"{name}.json", {"imagePath": f"{name}.png", "shapes": shapes})
    return folder


def test_everything_is_counted_and_what_is_wrong_is_named(mixed: Path) -> None:
    findings = check(open_source(str(mixed)))
    assert findings.counts["pictures"] == 3
    assert findings.counts["masks"] == 2
    assert findings.counts["empty masks"] == 1
    told = {(problem.entry, problem.is_error): problem.what for problem in findings.problems}
    assert "damaged" in told["b.json", True]
    assert "nothing to ask for" in told["c.json", False]
    assert "outside the picture" in told["d.json", False]
    assert len(told) == 3


def test_a_limit(mixed: Path) -> None:
    assert check(open_source(str(mixed)), limit=1).counts["pictures"] == 1


def test_a_sheet_shows_masks_and_what_does_not_count(own: ModuleType, tmp_path: Path) -> None:
    unsure = own.shape("ignore", [[60, 5], [70, 5], [70, 25], [60, 25]])
    plain = show(open_source(str(own.labelme(tmp_path / "plain"))), 4)
    shown = show(open_source(str(own.labelme(tmp_path / "unsure", own.shape("gizmo"), unsure))), 4)
    assert plain.size == shown.size
    assert (np.asarray(plain) != np.asarray(shown)).any()


def test_what_cannot_be_shown_is_told(mixed: Path) -> None:
    told: list[str] = []
    show(open_source(str(mixed)), 4, told.append)
    assert len(told) == 1
    assert "b.json" in told[0]
    for name in "acd":
        (mixed / f"{name}.json").unlink()
    with pytest.raises(DataError, match="nothing to show"):
        show(open_source(str(mixed)), 4)
