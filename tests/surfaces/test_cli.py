import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lisaseg.config import BUNDLED, FIRST_WORLD, OFFICIAL, NanoRecipe, RunOptions
from lisaseg.images.masks import from_rle
from lisaseg.segmenter import Segmenter
from lisaseg.surfaces import commands
from lisaseg.surfaces.cli import main
from lisaseg.surfaces.commands import DONE, FAILED, INTERRUPTED, USAGE

ASK = "Segment the dog."
BOX = (40, 30, 110, 90)
LISTS = ("segments", "dropped", "forgotten")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command line in a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_here(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run_here


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """The picture that the talking model knows."""
    return draw(tmp_path / "dog.png")


def draw(path: Path, size: tuple[int, int] = (160, 120)) -> Path:
    """A red box on black."""
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGB", size)
    image.paste((200, 60, 40), BOX)
    image.save(path)
    return path


def one_line(text: str, start: str = "error: ") -> str:
    """The one line that stderr must hold."""
    assert text.startswith(start)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- segment: what comes out


def test_segment_tells_the_answer_and_writes_it(run: Run, picture: Path, talking_model: str, tmp_path: Path) -> None:
    code, out, err = run("segment", picture, ASK, "--model", talking_model, "--out", tmp_path / "results")
    assert (code, err) == (DONE, "")
    words, segment, overlay = out.splitlines()
    assert words == "It is the dog."
    assert re.fullmatch(r"\S 0  the dog  score 0\.\d\d  box \d+,\d+ – \d+,\d+  area [\d,]+ px", segment)
    assert overlay == f"overlay {tmp_path / 'results' / 'dog_overlay.png'}"
    assert files_in(tmp_path / "results") == ["dog.json", "dog_mask_0.png", "dog_overlay.png"]


def test_the_mask_is_written_losslessly_and_covers_the_thing(
    run: Run, picture: Path, talking_model: str, tmp_path: Path
) -> None:
    run("segment", picture, ASK, "--model", talking_model)
    folder = tmp_path / "lisaseg_out"
    mask = np.asarray(Image.open(folder / "dog_mask_0.png"))
    assert set(np.unique(mask)) == {0, 255}
    record = json.loads((folder / "dog.json").read_text("utf-8"))
    assert np.array_equal(from_rle(record["segments"][0]["rle"]), mask > 0)
    truth = np.zeros((120, 160), bool)
    truth[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    assert (truth & (mask > 0)).sum() / (truth | (mask > 0)).sum() > 0.8


def test_json_is_one_object_per_picture_and_nothing_else(run: Run, picture: Path, talking_model: str) -> None:
    other = draw(picture.with_name("other.jpg"), (200, 150))
    code, out, err = run("segment", picture, other, ASK, "--model", talking_model, "--json")
    assert (code, err) == (DONE, "")
    first, second = map(json.loads, out.splitlines())
    assert list(first) == ["image", "width", "height", "model", "instruction", "text", *LISTS, "timings"]
    assert (first["image"], first["width"], first["height"]) == (str(picture), 160, 120)
    assert (second["image"], second["width"], second["height"]) == (str(other), 200, 150)
    assert (first["instruction"], first["text"]) == (ASK, "It is the dog.")
    assert list(first["segments"][0]) == ["index", "phrase", "span", "score", "bbox", "area", "rle"]
    assert from_rle(first["segments"][0]["rle"]).sum() == first["segments"][0]["area"]
    assert files_in(picture.parent) == ["dog.png", "other.jpg"]  # no --out, no files


def test_masks_that_are_too_small_are_told_and_not_drawn(run: Run, picture: Path, talking_model: str) -> None:
    code, out, err = run("segment", picture, ASK, "--model", talking_model, "--min-area", "15000", "--out", "results")
    assert (code, err) == (DONE, "")
    words, dropped, _ = out.splitlines()
    assert words == "It is the dog.  (no mask)"
    assert re.fullmatch(r"dropped, too faint or too small: the dog \(0\.\d\d\)", dropped)
    assert files_in(Path("results")) == ["dog.json", "dog_overlay.png"]
    code, out, _ = run("segment", picture, ASK, "--model", talking_model, "--json", "--min-score", "1")
    assert [segment["phrase"] for segment in json.loads(out)["dropped"]] == ["the dog"]


def test_the_same_seed_says_the_same(run: Run, picture: Path, talking_model: str) -> None:
    words = ("segment", picture, ASK, "--model", talking_model, "--json", "--temperature", "5", "--max-new-tokens", "9")
    texts = [json.loads(run(*words, "--seed", str(seed))[1])["text"] for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3]
    assert len(set(texts)) > 1


def test_json_writes_files_where_out_is_given(run: Run, picture: Path, talking_model: str, tmp_path: Path) -> None:
    code, out, _ = run("segment", picture, ASK, "--model", talking_model, "--json", "--out", tmp_path / "results")
    assert code == DONE
    assert json.loads(out)["segments"][0]["rle"]["size"] == [120, 160]
    assert "dog.json" in files_in(tmp_path / "results")


def test_several_formats_swallow_no_other_word(run: Run, picture: Path, talking_model: str, tmp_path: Path) -> None:
    code, _, err = run(
        "segment", picture, ASK, "--format", "rle", "polygon", "--out", tmp_path / "d", "--model", talking_model
    )
    assert (code, err) == (DONE, "")
    assert files_in(tmp_path / "d") == ["dog.json", "dog_overlay.png"]
    assert json.loads((tmp_path / "d" / "dog.json").read_text("utf-8"))["segments"][0]["polygons"]


def test_pictures_of_one_name_keep_separate_results(run: Run, talking_model: str, tmp_path: Path) -> None:
    pictures = [draw(tmp_path / "a" / "dog.png"), draw(tmp_path / "b" / "Dog.jpg"), draw(tmp_path / "dog_2.png")]
    code, out, _ = run("segment", *pictures, ASK, "--model", talking_model)
    assert code == DONE
    overlays = [line.removeprefix("overlay ") for line in out.splitlines() if line.startswith("overlay ")]
    assert overlays == [str(Path("lisaseg_out") / f"{stem}_overlay.png") for stem in ("dog", "Dog_2", "dog_2_2")]
    records = [json.loads(Path(name.replace("_overlay.png", ".json")).read_text("utf-8")) for name in overlays]
    assert [record["image"] for record in records] == list(map(str, pictures))


@pytest.mark.parametrize("batch_size", ["1", "2", "4"])
def test_a_bad_picture_is_told_and_does_not_lose_the_others(
    run: Run, picture: Path, talking_model: str, batch_size: str
) -> None:
    bad, last = picture.with_name("bad.jpg"), draw(picture.with_name("last.png"))
    bad.write_text("no picture")
    code, out, err = run(
        "segment", picture, bad, last, ASK, "--model", talking_model, "--json", "--batch-size", batch_size
    )
    assert code == FAILED
    assert str(bad) in one_line(err)
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(picture), str(last)]


def test_results_come_batch_by_batch(
    run: Run, picture: Path, talking_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = Segmenter.segment_batch, []

    def interrupted_at_the_second(self: Segmenter, pairs: list, **options: Any) -> list:
        asked.append(len(pairs))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answer(self, pairs, **options)

    monkeypatch.setattr(Segmenter, "segment_batch", interrupted_at_the_second)
    code, out, err = run(
        "segment", picture, picture, picture, ASK, "--model", talking_model, "--json", "--batch-size", "2"
    )
    assert code == INTERRUPTED
    one_line(err, "interrupted: ")
    assert len(out.splitlines()) == 2
    assert asked == [2, 1]


def test_an_answer_without_a_mask_is_a_result(run: Run, picture: Path, tiny_model: str, tmp_path: Path) -> None:
    code, out, err = run("segment", picture, ASK, "--model", tiny_model, "--max-new-tokens", "3")
    assert (code, err) == (DONE, "")
    assert "no mask" in out.splitlines()[0]
    assert files_in(tmp_path / "lisaseg_out") == ["dog.json", "dog_overlay.png"]


def test_a_file_name_that_is_no_text_is_no_trouble(run: Run, picture: Path, talking_model: str) -> None:
    try:
        odd = Path(shutil.copy(picture, picture.parent / os.fsdecode(b"\xff\xe9.png")))
    except OSError:
        pytest.skip("this file system takes only names that are text")
    code, out, err = run("segment", odd, picture, ASK, "--model", talking_model)
    assert (code, err) == (DONE, "")
    assert out.count("It is the dog.") == 2
    code, out, _ = run("segment", odd, ASK, "--model", talking_model, "--json")
    assert code == DONE
    assert json.loads(out)["image"] == str(odd)


# --- segment: what can go wrong


def truncated_jpeg(path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD_PICTURES = {
    "missing": lambda path: None,
    "text": lambda path: path.write_text("I am no picture."),
    "truncated": truncated_jpeg,
    "zero_bytes": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("trouble", BAD_PICTURES)
def test_a_bad_picture_is_one_line(run: Run, tmp_path: Path, tiny_model: str, trouble: str) -> None:
    path = tmp_path / "picture.jpg"
    BAD_PICTURES[trouble](path)
    code, out, err = run("segment", path, ASK, "--model", tiny_model)
    assert (code, out) == (FAILED, "")
    assert str(path) in one_line(err)
    assert not (tmp_path / "lisaseg_out").exists()


def test_a_picture_over_the_limit_names_the_flag(run: Run, picture: Path, tiny_model: str) -> None:
    code, _, err = run("segment", picture, ASK, "--model", tiny_model, "--max-pixels", "100")
    assert code == FAILED
    assert "--max-pixels" in one_line(err)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [("", "instruction is empty"), (" \n ", "instruction is empty"), ("dog " * 10_000, "too long")],
)
def test_a_bad_instruction_is_one_line_however_many_pictures(
    run: Run, picture: Path, tiny_model: str, instruction: str, expected: str
) -> None:
    code, out, err = run("segment", picture, picture, instruction, "--model", tiny_model)
    assert (code, out) == (FAILED, "")
    assert expected in one_line(err)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nanu", "unknown model 'nanu'"),
        (".", "no config.json"),
        ("somebody/something", "cannot fetch 'somebody/something'"),
        ("dog.png", "is a file"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(run: Run, picture: Path, model: str, expected: str) -> None:
    code, out, err = run("segment", picture, ASK, "--model", model)
    assert (code, out) == (FAILED, "")
    assert expected in one_line(err)


def test_a_device_that_is_not_there_is_one_line(run: Run, picture: Path, tiny_model: str) -> None:
    code, _, err = run("segment", picture, ASK, "--model", tiny_model, "--device", "tpu")
    assert code == FAILED
    assert "--device" in one_line(err)


def test_an_output_folder_that_cannot_be_made_is_one_line(run: Run, picture: Path, tiny_model: str) -> None:
    code, _, err = run(
        "segment", picture, ASK, "--model", tiny_model, "--max-new-tokens", "3", "--out", picture / "results"
    )
    assert code == FAILED
    assert "choose another folder" in one_line(err)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_not_writable_is_one_line(
    run: Run, picture: Path, tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    code, _, err = run(
        "segment", picture, ASK, "--model", tiny_model, "--max-new-tokens", "3", "--out", tmp_path / "locked"
    )
    assert code == FAILED
    assert "choose another folder" in one_line(err)


def test_a_full_disk_ends_the_run_and_leaves_no_half_written_file(
    run: Run, picture: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = run("segment", picture, picture, ASK, "--model", tiny_model, "--max-new-tokens", "3")
    assert (code, out) == (FAILED, "")
    assert os.strerror(errno.ENOSPC) in one_line(err)
    assert files_in(tmp_path / "lisaseg_out") == []


def test_a_bug_keeps_its_traceback(run: Run, picture: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Segmenter, pairs: list, **options: Any) -> list:
        raise ValueError("a bug")

    monkeypatch.setattr(Segmenter, "segment_batch", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("segment", picture, ASK, "--model", tiny_model)


# --- usage


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["segment"], "IMAGE [IMAGE ...] INSTRUCTION, got neither"),
        (["segment", "dog.png"], "got only 'dog.png'"),
        (["segment", "dog.png", "dog.png"], "got the file 'dog.png'"),
        (["segment", "dog.png", ASK, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["segment", "dog.png", ASK, "--max-new-tokens", "0"], "--max-new-tokens must be at least 1, got 0"),
        (["segment", "dog.png", ASK, "--max-pixels", "-1"], "--max-pixels must be at least 1, got -1"),
        (["train", "nano", "--out", "run", "--photo-share", "2"], "--photo-share must be between 0 and 1"),
        (["train", "nano", "--out", "run", "--workers", "-1"], "--workers must be at least 0, got -1"),
    ],
)
def test_an_option_that_is_refused_is_one_line(run: Run, picture: Path, argv: list[str], expected: str) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (USAGE, "")
    assert expected in one_line(err)


@pytest.mark.parametrize(
    "argv",
    [
        ["segmnt"],
        ["train"],
        ["train", "nano"],
        ["segment", "a.png", ASK, "--colour"],
        ["segment", "a.png", ASK, "--format", "gif"],
        ["segment", "a.png", ASK, "--dtype", "int8"],
        ["segment", "a.png", ASK, "--max-pixels", "many"],
    ],
)
def test_wrong_usage_is_told_on_stderr(run: Run, argv: list[str]) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (USAGE, "")
    assert "--help" in err
    assert "Traceback" not in err


def test_an_instruction_may_be_long_and_look_like_anything(run: Run, tiny_model: str, picture: Path) -> None:
    code, _, err = run("segment", "none.png", "a/" * 3000, "--model", tiny_model)
    assert code == FAILED
    assert "none.png" in one_line(err)


@pytest.mark.parametrize("argv", [[], ["--help"], ["segment", "--help"], ["train", "nano", "--help"]])
def test_help_goes_to_stdout(run: Run, argv: list[str]) -> None:
    code, out, err = run(*argv)
    assert (code, err) == (DONE, "")
    assert "usage: lisaseg" in out


def test_every_field_of_the_recipe_is_a_documented_flag(run: Run) -> None:
    _, out, _ = run("train", "nano", "--help")
    for kind in (NanoRecipe, RunOptions):
        for name in kind.__dataclass_fields__:
            assert f"--{name.replace('_', '-')}" in out
    assert "Cut-outs of each that it sees." in out


# --- the other commands


def test_version_names_what_matters(run: Run) -> None:
    code, out, _ = run("version")
    assert code == DONE
    assert [line.split()[0] for line in out.splitlines()] == ["lisaseg", "python", "torch", "transformers"]
    assert run("--version") == (DONE, out, "")


@pytest.fixture
def hub(tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model of ours, one of somebody else, and one that is damaged."""
    cache = tmp_path / "hub"
    for name, config in (("ours", None), ("theirs", '{"model_type": "llava"}'), ("broken", "{")):
        snapshot = cache / f"models--me--{name}" / "snapshots" / ("0" * 40)
        shutil.copytree(tiny_model, snapshot)
        if config:
            (snapshot / "config.json").write_text(config)
        refs = cache / f"models--me--{name}" / "refs"
        refs.mkdir()
        (refs / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(cache))
    return cache


def test_models_lists_ours_in_the_hub_cache(run: Run, hub: Path, tiny_model: str) -> None:
    code, out, err = run("models", "--json")
    assert (code, err) == (DONE, "")
    listed = {record["name"]: record for record in map(json.loads, out.splitlines())}
    assert set(listed) - {*BUNDLED, *OFFICIAL} == {"me/ours"}
    ours = listed["me/ours"]
    assert ours["where"] == "hub cache"
    assert ours["bytes"] == sum(path.stat().st_size for path in Path(tiny_model).iterdir())
    assert ours["parameters"] == sum(p.numel() for p in Segmenter.load(tiny_model).lisa.state_dict().values())
    code, out, _ = run("models")
    assert code == DONE
    assert any(line.startswith("me/ours") and "hub cache" in line for line in out.splitlines())


def test_weights_that_cannot_be_read_are_listed_as_unknown(run: Run, hub: Path) -> None:
    weights = next((hub / "models--me--ours").rglob("*.safetensors"))
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, out, _ = run("models", "--json")
    assert code == DONE
    assert {record["name"]: record["parameters"] for record in map(json.loads, out.splitlines())}["me/ours"] is None
    assert "unknown" in run("models")[1]


def test_no_hub_cache_is_no_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "none"))
    code, out, err = run("models")
    assert (code, err) == (DONE, "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == [*BUNDLED, *OFFICIAL]


def test_a_published_checkpoint_in_the_hub_cache_is_listed_by_its_short_name(run: Run, hub: Path) -> None:
    home = hub / "models--xinlai--LISA-13B-llama2-v1" / "snapshots" / ("0" * 40)
    shutil.copytree(PUBLISHED, home)
    (home.parents[1] / "refs").mkdir()
    (home.parents[1] / "refs" / "main").write_text("0" * 40)
    records = {record["name"]: record for record in map(json.loads, run("models", "--json")[1].splitlines())}
    assert records["lisa-13b"]["where"] == "hub cache"
    assert records["lisa-13b"]["bytes"] > 20_000_000
    assert records["lisa-7b"] == {"name": "lisa-7b", "where": "hub", "bytes": None, "parameters": None}


# --- convert and inspect, and published checkpoints


PUBLISHED = Path(__file__).parents[1] / "golden" / "llava_v1" / "checkpoint"


QUESTION = "Can you segment the food that tastes spicy and hot?"
SCENE = PUBLISHED.parent / "scene0.png"


def test_a_published_checkpoint_answers_as_it_is_and_converted(run: Run) -> None:
    code, out, err = run("convert", PUBLISHED, "ours", "--dtype", "fp32")
    assert (code, err) == (DONE, "")
    assert out == "The model is in ours; try it: lisaseg segment IMAGE INSTRUCTION --model ours\n"
    records = []
    for model in (PUBLISHED, "ours"):
        code, out, _ = run("segment", SCENE, QUESTION, "--model", model, "--json")
        assert code == DONE
        records.append(json.loads(out))
    one, other = records
    assert one["segments"] == other["segments"]
    assert len(one["segments"]) == 1
    assert one["model"] == "checkpoint"


def test_a_conversion_into_a_full_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    code, _, err = run("convert", PUBLISHED, tmp_path)
    assert code == FAILED
    assert "is not empty" in one_line(err)


def test_an_interrupted_conversion_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lisaseg.model.convert.convert", interrupt)
    code, _, err = run("convert", PUBLISHED, "ours")
    assert code == INTERRUPTED
    assert "the same command goes on" in one_line(err, "interrupted: ")


def test_inspect_shows_what_it_is_and_what_it_takes(run: Run) -> None:
    code, out, err = run("inspect", PUBLISHED)
    assert (code, err) == (DONE, "")
    for words in ("[SEG] 1024", "llava_v1", "picture tokens 256", "image side 1,024", "4bit", "GB"):
        assert words in out
    record = json.loads(run("inspect", PUBLISHED, "--json")[1])
    assert record["memory"]["fp32"]["total"] > record["memory"]["4bit"]["total"]


def test_inspect_of_something_else_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    code, _, err = run("inspect", tmp_path)
    assert code == FAILED
    assert "is a 'bert' model" in one_line(err)


def test_a_quantised_answer_and_nothing_else_on_the_streams(tmp_path: Path) -> None:
    """In a process of its own, where libraries have not been quietened yet."""
    command = [sys.executable, "-m", "lisaseg", "segment", SCENE, QUESTION, "--model", PUBLISHED]
    done = subprocess.run(
        [*command, "--quantize", "4bit", "--device", "cpu", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (DONE, "")
    assert len(json.loads(done.stdout)["segments"]) == 1


def test_quantize_all_without_quantize_is_wrong_usage(run: Run, picture: Path) -> None:
    code, _, err = run("segment", picture, ASK, "--quantize-all")
    assert code == USAGE
    assert "say how, too, with --quantize 8bit or 4bit" in one_line(err)


# --- train and evaluate


def test_train_hands_its_flags_over(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = []

    def train_nano(recipe: NanoRecipe, options: RunOptions) -> Path:
        given.extend((recipe, options))
        return options.out / "model"

    monkeypatch.setattr("lisaseg.training.nano.train_nano", train_nano)
    code, out, err = run("train", "nano", "--out", "run", "--concepts", "dog", "cat", "--seed", "3", "--bf16")
    assert (code, err) == (DONE, "")
    assert given == [NanoRecipe(concepts=("dog", "cat"), seed=3), RunOptions(out=Path("run"), bf16=True)]
    assert str(Path("run") / "model") in out
    run("train", "nano", "--out", "run")
    assert given[2].concepts == FIRST_WORLD


def test_train_without_a_pack_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISASEG_NANO_PACK", raising=False)
    code, _, err = run("train", "nano", "--out", "run")
    assert code == FAILED
    assert "--pack" in one_line(err)


def test_train_without_its_extra_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    code, _, err = run("train", "nano", "--out", "run")
    assert code == FAILED
    assert "pip install 'lisaseg[train]'" in one_line(err)


def test_an_interrupted_training_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(recipe: NanoRecipe, options: RunOptions) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("lisaseg.training.nano.train_nano", interrupted)
    code, _, err = run("train", "nano", "--out", "run")
    assert code == INTERRUPTED
    assert "same command" in one_line(err, "interrupted: ")


# --- as a process


def process(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a Python of its own; its stdout and stderr are caught as text."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, *words], check=False, text=True, **pipes)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from lisaseg.surfaces.cli import main; code = main(['segment', '--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = process(["-c", script])
    assert done.returncode == DONE
    loaded = set(done.stderr.split())
    assert "tyro" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "cv2", "numpy"})


def test_the_process_answers(talking_model: str, picture: Path) -> None:
    words = ["segment", str(picture), "gone.jpg", ASK, "--model", talking_model, "--json"]
    done = process(["-m", "lisaseg", *words], cwd=picture.parent)
    assert done.returncode == FAILED
    assert "gone.jpg" in one_line(done.stderr)
    assert json.loads(done.stdout)["text"] == "It is the dog."


@pytest.mark.skipif(os.name != "posix", reason="pipes break in this way on POSIX only")
def test_a_reader_that_leaves_early_hears_no_complaint() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = process(["-m", "lisaseg", "version"], stdout=write_end)
    os.close(write_end)
    assert done.returncode == FAILED
    assert done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can send SIGINT to one process")
def test_ctrl_c_is_one_line_and_130(talking_model: str, picture: Path) -> None:
    words = ["segment", *[str(picture)] * 5000, ASK, "--model", talking_model, "--json", "--batch-size", "1"]
    script = (  # a test run in the background inherits that SIGINT is ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from lisaseg.surfaces.cli import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()  # it is at work
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == INTERRUPTED
    one_line(err, "interrupted: ")
