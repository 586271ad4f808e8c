"""The paper's data sets, tiny: one folder of all of them for each test that wants it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).with_name("make_paper_data.py")


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """Functions that write files in the formats of published data."""
    spec = importlib.util.spec_from_file_location("make_paper_data", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path, maker: ModuleType) -> Path:
    """The folder that the original calls `dataset`."""
    return maker.write_paper_data(tmp_path / "dataset")
