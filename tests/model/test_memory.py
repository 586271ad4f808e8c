from pathlib import Path

import pytest
import torch

from lisaseg.config import LoadOptions
from lisaseg.errors import DeviceError
from lisaseg.model import memory
from lisaseg.model.checkpoints import load_model, open_checkpoint
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.memory import estimate, free_bytes, refuse_what_cannot_fit, telling_out_of_memory

CHECKPOINT = str(Path(__file__).parents[1] / "golden" / "llava_v1" / "checkpoint")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config() -> LisaConfig:
    return open_checkpoint(CHECKPOINT).config


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(dtype="fp32"),
        LoadOptions(dtype="bf16"),
        LoadOptions(dtype="fp32", quantize="8bit"),
        LoadOptions(dtype="fp32", quantize="4bit"),
        LoadOptions(dtype="bf16", quantize="4bit", quantize_all=True),
    ],
)
def test_weights_take_what_was_estimated(config: LisaConfig, options: LoadOptions) -> None:
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    lisa, _ = load_model(CHECKPOINT, options)
    taken = sum(parameter.numel() * parameter.itemsize for parameter in lisa.parameters())
    assert estimate(config, dtype, options).weights == pytest.approx(taken, rel=0.01)


def test_what_does_not_fit_is_refused_with_what_does(config: LisaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    half = estimate(config, torch.bfloat16, LoadOptions()).total
    monkeypatch.setattr(memory, "free_bytes", lambda _: half)
    with pytest.raises(
        DeviceError, match=r"not enough memory on cpu: .* needs about .* are free; what fits: --dtype bf16"
    ):
        refuse_what_cannot_fit(config, CPU, torch.float32, LoadOptions())
    refuse_what_cannot_fit(config, CPU, torch.bfloat16, LoadOptions())


def test_where_nothing_fits_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    with pytest.raises(DeviceError, match="nothing smaller fits"):
        load_model(CHECKPOINT, LoadOptions(device="cpu"))


def test_where_nobody_can_tell_it_is_tried(config: LisaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: None)
    refuse_what_cannot_fit(config, CPU, torch.float32, LoadOptions())


def test_this_machine_has_some_memory() -> None:
    free = free_bytes(CPU)
    assert free is not None
    assert free > 10**8
    assert free_bytes(torch.device("mps")) is None


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("you can't allocate memory")]
)
def test_a_failed_allocation_says_what_helps(error: Exception) -> None:
    with (
        pytest.raises(DeviceError, match=r"out of memory on cpu; .*--quantize"),
        telling_out_of_memory(CPU),
    ):
        raise error


def test_a_real_failed_allocation_on_the_cpu() -> None:
    with pytest.raises(DeviceError, match="out of memory"), telling_out_of_memory(CPU):
        torch.empty(1 << 50)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), telling_out_of_memory(CPU):
        raise RuntimeError("shapes differ")
