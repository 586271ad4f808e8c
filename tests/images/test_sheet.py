import numpy as np
import pytest
from PIL import Image

from lisaseg.images.sheet import contact_sheet


def test_every_picture_has_its_place_and_its_words() -> None:
    red, blue = Image.new("RGB", (90, 30), (255, 0, 0)), Image.new("RGB", (30, 90), (0, 0, 255))
    sheet = np.asarray(contact_sheet([(red, "a"), (blue, "b"), (red, "c " * 300)], columns=2, cell=(100, 80)))
    reds, blues = (sheet == (255, 0, 0)).all(axis=2), (sheet == (0, 0, 255)).all(axis=2)
    assert blues.sum() == 80 * 27
    assert reds.sum() == 2 * 100 * 33
    upper, left = sheet.shape[0] // 2, sheet.shape[1] // 2
    assert not blues[upper:].any()
    assert not blues[:, :left].any()
    assert (sheet.sum(axis=2) < 100).any()


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
