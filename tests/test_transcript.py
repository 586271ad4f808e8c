from inspect import unwrap
from typing import Any

import numpy as np
import pytest

from lisaseg.errors import InstructionError
from lisaseg.transcript import checked_hand

IMAGE = np.zeros((30, 40, 3), np.uint8)


def test_points_and_box_become_plain_numbers() -> None:
    points, box = unwrap(checked_hand)(IMAGE, np.array([[39, 29, 1], [0, 0, -1]]), np.array([0, 0, 40, 30]))
    assert points == ((39.0, 29.0, 1), (0.0, 0.0, -1))
    assert box == (0.0, 0.0, 40.0, 30.0)
    assert all(type(number) in (int, float) for point in points for number in point)


@pytest.mark.parametrize(
    ("points", "box", "message"),
    [
        ([(1, 1)], None, r"expected points \[\(x, y, \+1 or -1\), ...\]"),
        ([("a", 1, 1)], None, "expected points"),
        ((1, 1, 1), None, "expected points"),
        ([(1, 1, 1.5)], None, "got 1.5"),
        ([(1, 1, float("inf"))], None, "got inf"),
        ([], (1, None, 2, 3), "expected points .* and a box"),
        ([], "abcd", "expected points .* and a box"),
        ([], (10, 10, 20), "is not x0, y0, x1, y1 in the picture, which is 40x30"),
    ],
)
def test_what_are_no_points_and_no_box_is_told(points: Any, box: Any, message: str) -> None:
    with pytest.raises(InstructionError, match=message):
        unwrap(checked_hand)(IMAGE, points, box)
