"""Tiny data sets, published ones and one's own: one folder of each for every test that wants it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """Functions that write files in the formats of published data."""
    return _script("make_paper_data")


@pytest.fixture(scope="session")
def own() -> ModuleType:
    """Functions that write files in the formats that people bring."""
    return _script("make_own_data")


@pytest.fixture
def root(tmp_path: Path, maker: ModuleType) -> Path:
    """The folder that the original calls `dataset`."""
    return maker.write_paper_data(tmp_path / "dataset")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
