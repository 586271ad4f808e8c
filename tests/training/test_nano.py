from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lisaseg.config import NanoRecipe, RunOptions
from lisaseg.data.pack import load_pack
from lisaseg.data.scenes import SceneOptions, compose, from_photo
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.errors import DataError
from lisaseg.language.prompts import SEG_TOKEN
from lisaseg.model.processor import Processor
from lisaseg.segmenter import Segmenter
from lisaseg.training.lessons import labelled
from lisaseg.training.losses import IGNORE_LABEL
from lisaseg.training.nano import NanoLearner, SceneLessons, build, collate, concept_maps, train_nano

WORLD = ("dog", "cat", "cup", "car")


@pytest.fixture(scope="module")
def processor(tiny_model: str) -> Processor:
    return Segmenter.load(tiny_model).processor


def recipe(**options: Any) -> NanoRecipe:
    values: dict[str, Any] = {"concepts": WORLD, "scenes": 8, "look_scenes": 4, "batch_size": 2, **options}
    return NanoRecipe(**values)


def lessons(pack: Path, processor: Processor, **options: Any) -> SceneLessons:
    return SceneLessons(
        recipe=recipe(**options),
        pack=load_pack(pack, WORLD, split="train"),
        processor=processor,
        vocabulary=load_vocabulary(),
    )


def test_labels_are_the_answers_with_their_end_marks(processor: Processor) -> None:
    ids, labels = labelled(
        processor, [("Segment the dog.", "It is the dog [SEG]."), ("And the cat?", "The cat [SEG].")]
    )
    learned = [token for token, label in zip(ids, labels, strict=True) if label != IGNORE_LABEL]
    assert all(label in (IGNORE_LABEL, token) for token, label in zip(ids, labels, strict=True))
    tokenizer = processor.tokenizer
    assert learned.count(tokenizer.eos_id) == 2
    assert tokenizer.decode(learned).replace(" ", "") == "Itisthedog[SEG].Thecat[SEG]."


def test_a_lesson_is_the_same_each_time_and_has_a_mask_for_each_seg(tiny_pack: Path, processor: Processor) -> None:
    taught = lessons(tiny_pack, processor, look_scenes=0, photo_share=0.3)
    for index in range(8):
        one, same = taught[index], taught[index]
        assert one["ids"] == same["ids"]
        assert torch.equal(one["segmenter_pixels"], same["segmenter_pixels"])
        assert len(one["masks"]) == one["labels"].count(processor.tokenizer.seg_id)
        assert len(one["ids"]) == len(one["labels"])


def test_the_first_lessons_have_no_words(tiny_pack: Path, processor: Processor) -> None:
    taught = lessons(tiny_pack, processor)
    assert [bool(taught[index]["ids"]) for index in range(8)] == [False] * 4 + [True] * 4


def test_patches_know_what_they_show(tiny_pack: Path, processor: Processor) -> None:
    pack = load_pack(tiny_pack, WORLD, split="train")
    made = compose(pack, SceneOptions(canvas=192), np.random.default_rng(0))
    maps = concept_maps(made, WORLD, processor.config)
    assert maps["concepts_segmenter"].shape == (5, 12, 12)
    height, width = made.image.shape[:2]
    assert maps["concepts_segmenter"].sum() == pytest.approx(height * width / 256, rel=1e-3)
    for thing in made.things:
        plane = maps["concepts_segmenter"][1 + WORLD.index(thing.concept)]
        assert plane.max() > 0.5


def test_what_a_photograph_does_not_label_teaches_nothing(tiny_pack: Path, processor: Processor) -> None:
    (photo,) = load_pack(tiny_pack, WORLD, split="train").photos
    maps = concept_maps(from_photo(photo, 192), WORLD, processor.config)["concepts_segmenter"]
    assert maps[0].sum() == 0
    assert maps[1].sum() > 0


def test_a_batch_may_be_partly_or_wholly_without_words(tiny_pack: Path, processor: Processor) -> None:
    taught = lessons(tiny_pack, processor)
    learner = NanoLearner(build(processor.config), processor.tokenizer.seg_id, len(WORLD))
    silent = collate([taught[0], taught[1]], pad_id=0)
    assert silent["ids"].shape[0] == 0
    assert set(learner(**silent)) == {"loss", "patch_segmenter", "patch_vlm"}
    mixed = collate([taught[3], taught[4]], pad_id=0)
    assert mixed["picture_of_row"].tolist() == [1]
    losses = learner(**mixed)
    assert losses.keys() >= {"loss", "answer", "bce", "dice", "iou"}
    losses["loss"].backward()
    gradients = {name: weight.grad for name, weight in learner.named_parameters()}
    for part in ("lisa.projection.0", "lisa.vlm.lm_head", "segmenter_head"):
        gradient = gradients[f"{part}.weight"]
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_learning_on_one_scene_brings_words_and_mask(tiny_pack: Path, processor: Processor) -> None:
    """The whole of it: after some steps on one lesson the network says and draws what it was taught."""
    torch.manual_seed(0)
    taught = lessons(tiny_pack, processor, look_scenes=0, photo_share=0.0, turns=1)
    number = next(i for i in range(8) if len(taught[i]["masks"]) == 1)
    batch = collate([taught[number]], pad_id=0)
    learner = NanoLearner(build(processor.config), processor.tokenizer.seg_id, len(WORLD))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    first = None
    for _ in range(40):
        losses = learner(**batch)
        first = first or {name: float(value.detach()) for name, value in losses.items()}
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    last = {name: float(value.detach()) for name, value in learner(**batch).items()}
    assert last["answer"] < 0.2 * first["answer"]
    assert last["dice"] < 0.6 * first["dice"]


def test_an_interrupted_training_goes_on_and_ends_as_an_uninterrupted_one(tiny_pack: Path, tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> RunOptions:
        values: dict[str, Any] = {"out": tmp_path / name, "pack": tiny_pack, "device": "cpu", "workers": 0, **options}
        return RunOptions(**values)

    whole = train_nano(recipe(), run("whole"))
    train_nano(recipe(), run("cut", save_steps=2))
    for late in (tmp_path / "cut" / "checkpoints").glob("checkpoint-*"):
        if late.name != "checkpoint-2":
            _remove(late)
    resumed = train_nano(recipe(), run("cut"))
    one, other = Segmenter.load(str(whole)), Segmenter.load(str(resumed))
    for (name, tensor), (_, same) in zip(one.lisa.state_dict().items(), other.lisa.state_dict().items(), strict=True):
        torch.testing.assert_close(tensor, same, atol=2e-3, rtol=2e-3, msg=name)
    assert any((tmp_path / "whole" / "logs").iterdir())
    assert one.processor.tokenizer.seg_id == one.processor.encode([("x", SEG_TOKEN)])[-2]


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_a_world_that_the_pack_cannot_show_is_refused(tiny_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training sprite of: zebra"):
        train_nano(recipe(concepts=("dog", "zebra")), RunOptions(out=tmp_path, pack=tiny_pack))


def test_a_training_may_start_from_a_model(tiny_model: str, tiny_pack: Path, tmp_path: Path) -> None:
    still = recipe(learning_rate=1e-12, scenes=2, look_scenes=0)
    run = RunOptions(out=tmp_path, pack=tiny_pack, device="cpu", workers=0, start=Path(tiny_model))
    trained, start = Segmenter.load(str(train_nano(still, run))), Segmenter.load(tiny_model)
    for (name, one), (_, other) in zip(trained.lisa.state_dict().items(), start.lisa.state_dict().items(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3, msg=name)
