"""The package's face: what it exports, and that the light parts of it stay light."""

import subprocess
import sys
from importlib import import_module

import pytest

import lisaseg

HEAVY = ("torch", "transformers", "cv2")
REPORT = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    script = f"{statement}\n{REPORT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_exports_are_pinned_and_sorted() -> None:
    expected = "Answer AskOptions Conversation Done LisaError Segment SegmentReady Segmenter TextDelta"
    assert lisaseg.__all__ == expected.split()
    assert lisaseg.__all__ == sorted(lisaseg.__all__)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("Answer", "lisaseg.values"),
        ("AskOptions", "lisaseg.config"),
        ("Conversation", "lisaseg.conversation"),
        ("Done", "lisaseg.values"),
        ("LisaError", "lisaseg.errors"),
        ("Segment", "lisaseg.values"),
        ("SegmentReady", "lisaseg.values"),
        ("Segmenter", "lisaseg.segmenter"),
        ("TextDelta", "lisaseg.values"),
    ],
)
def test_an_export_is_the_object_of_its_home(name: str, home: str) -> None:
    exported = getattr(lisaseg, name)
    assert exported is getattr(import_module(home), name)
    assert exported.__module__ == home


def test_dir_lists_the_exports_and_no_helper() -> None:
    listed = dir(lisaseg)
    assert set(lisaseg.__all__) <= set(listed)
    assert "__version__" in listed
    assert "TYPE_CHECKING" not in listed


def test_an_unknown_name_is_an_attribute_error_that_lists_the_exports() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Segmentor'; it exports Answer, .*Segmenter"):
        _ = lisaseg.Segmentor  # ty: ignore[missing-attribute]


@pytest.mark.parametrize(
    "module",
    ["lisaseg", "lisaseg.config", "lisaseg.errors", "lisaseg.language.prompts", "lisaseg.surfaces.cli"],
)
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert "lisaseg" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_listing_names_imports_nothing_heavy() -> None:
    assert modules_after("import lisaseg; dir(lisaseg); lisaseg.LisaError").isdisjoint(HEAVY)
