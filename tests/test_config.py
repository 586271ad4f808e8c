import dataclasses
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from typing import Any, get_args

import pytest

from lisaseg.config import (
    BUNDLED,
    FIRST_WORLD,
    AskOptions,
    ClickRecipe,
    Dtype,
    ImageLimits,
    LoadOptions,
    NanoRecipe,
    NanoReportOptions,
    RunOptions,
)

ALL: list[Callable[..., Any]] = [
    ImageLimits,
    LoadOptions,
    AskOptions,
    NanoRecipe,
    lambda **options: RunOptions(out=Path("run"), **options),
    NanoReportOptions,
    ClickRecipe,
]


@pytest.mark.parametrize("make", ALL)
def test_the_defaults_are_fine_and_frozen(make: Callable[..., Any]) -> None:
    options = make()
    assert options == make()
    first = dataclasses.fields(options)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, first, getattr(options, first))


@pytest.mark.parametrize("make", ALL)
def test_every_field_is_given_by_name(make: Callable[..., Any]) -> None:
    assert all(field.kw_only for field in dataclasses.fields(make()))


@pytest.mark.parametrize(
    ("make", "name", "least"),
    [
        (ALL[0], "max_pixels", 1),
        (ALL[0], "max_megabytes", 1),
        (ALL[2], "max_new_tokens", 1),
        (ALL[2], "min_area", 0),
        (ALL[3], "sprites_per_concept", 1),
        (ALL[3], "turns", 1),
        (ALL[3], "batch_size", 1),
        (ALL[4], "workers", 0),
        (ALL[4], "save_steps", 1),
        (ALL[5], "scenes", 1),
        (ALL[5], "batch_size", 1),
        (ALL[6], "scenes", 1),
        (ALL[6], "passes", 1),
        (ALL[6], "batch_size", 1),
    ],
)
def test_a_number_below_its_least_is_refused_by_its_flag(make: Callable[..., Any], name: str, least: int) -> None:
    assert getattr(make(**{name: least}), name) == least
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(ValueError, match=f"^{flag} must be at least {least}, got {least - 1}$"):
        make(**{name: least - 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "--temperature must be at least 0, got -0.5"),
        ({"temperature": float("nan")}, "--temperature must be at least 0, got nan"),
        ({"temperature": float("inf")}, "--temperature must be at least 0, got inf"),
        ({"top_p": 0.0}, "--top-p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "--top-p must be above 0 and at most 1, got 1.5"),
        ({"seed": -1}, r"--seed must be between 0 and 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, "--seed must be between"),
        ({"min_score": 1.5}, "--min-score must be between 0 and 1, got 1.5"),
    ],
)
def test_questions_cannot_be_answered_in_any_way(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        AskOptions(**options)


def test_a_recipe_needs_scenes() -> None:
    with pytest.raises(ValueError, match=r"^--scenes must be at least 1, got 0$"):
        NanoRecipe(scenes=0, look_scenes=0)


def test_a_recipe_looks_at_most_at_all_its_scenes() -> None:
    assert NanoRecipe(scenes=5, look_scenes=5).look_scenes == 5
    with pytest.raises(ValueError, match=r"^--look-scenes 6 is more than --scenes 5$"):
        NanoRecipe(scenes=5, look_scenes=6)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_share_lies_between_0_and_1(share: float) -> None:
    with pytest.raises(ValueError, match=r"^--photo-share must be between 0 and 1, got"):
        NanoRecipe(photo_share=share)
    assert NanoRecipe(photo_share=0.0) != NanoRecipe(photo_share=1.0)


@pytest.mark.parametrize("dtype", [None, *get_args(Dtype)])
def test_known_dtypes(dtype: Dtype | None) -> None:
    assert LoadOptions(dtype=dtype).dtype == dtype


def test_an_unknown_dtype_is_refused_by_its_flag() -> None:
    options = object.__new__(LoadOptions)
    object.__setattr__(options, "dtype", "fp8")
    with pytest.raises(ValueError, match=r"^--dtype must be fp32, bf16 or fp16, got 'fp8'$"):
        unwrap(LoadOptions.__post_init__)(options)


def test_the_world_is_distinct_names_that_evaluation_shares_with_the_recipe() -> None:
    assert len(set(FIRST_WORLD)) == len(FIRST_WORLD)
    assert NanoReportOptions().concepts == NanoRecipe().concepts == FIRST_WORLD
    assert NanoReportOptions().sprites_per_concept == NanoRecipe().sprites_per_concept
    assert "nano" in BUNDLED
