from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from lisaseg.data.sample import Dialogue, Exchange, Lesson, Masks, Sample
from lisaseg.errors import DataError
from lisaseg.model.processor import Processor
from lisaseg.segmenter import Segmenter
from lisaseg.training.augment import augment
from lisaseg.training.lessons import Lessons, collate, labelled, tensors
from lisaseg.training.losses import IGNORE_LABEL

LONG = "word " * 400


@pytest.fixture(scope="module")
def processor(tiny_model: str) -> Processor:
    return Segmenter.load(tiny_model).processor


def sample(*dialogues: Dialogue, name: str = "a.jpg", masks: int = 1) -> Sample:
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, :40] = 200
    makers = [lambda value=value: np.full((60, 80), value, np.uint8) for value in range(masks)]
    return Sample(name=name, image=image, dialogues=dialogues, masks=Masks(makers))


def said(question: str, answer: str, *masks: int) -> Exchange:
    return Exchange(text=question, answer=answer, masks=masks)


class Given:
    """Lessons as they are given."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Lesson:
        return Lesson(sample=self.samples[index])


def test_masks_come_in_the_order_of_their_seg(processor: Processor) -> None:
    both = sample((said("Both?", "The [SEG] and [SEG].", 2, 0),), (said("One?", "[SEG].", 1),), masks=3)
    made = tensors(both, processor, 320)
    assert made["masks"].amax(dim=(1, 2)).tolist() == [2, 0, 1]
    assert made["masks"].shape == (3, 60, 80)


def test_a_batch_points_each_row_at_its_picture_and_pads_with_what_is_not_learned(processor: Processor) -> None:
    one = tensors(sample((said("A?", "[SEG].", 0),), (said("Something longer?", "It is [SEG].", 0),)), processor, 320)
    other = tensors(sample((said("B?", "No."),), name="b.jpg"), processor, 320)
    batch = collate([one, other], pad_id=7)
    assert batch["picture_of_row"].tolist() == [0, 0, 1]
    assert [len(masks) for masks in batch["masks"]] == [2, 0]
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["ids"][padding] == 7).all()
    assert (batch["labels"][padding] == IGNORE_LABEL).all()
    assert batch["squares"].dtype == torch.uint8
    assert batch["names"] == ["a.jpg", "b.jpg"]


def test_what_is_too_long_loses_whole_later_turns(processor: Processor) -> None:
    first = said("A?", "[SEG].", 0)
    made = tensors(sample((first, said(LONG, "Later [SEG].", 0))), processor, 320)
    assert made["rows"][0][0] == labelled(processor, [("A?", "[SEG].")])[0]
    assert len(made["masks"]) == 1


def test_words_may_be_cut_and_a_seg_may_not(processor: Processor) -> None:
    cut = tensors(sample((said("Tell me.", LONG),)), processor, 320)
    assert len(cut["rows"][0][0]) == len(cut["rows"][0][1]) == 320
    with pytest.raises(DataError, match=r"a\.jpg is too long: with the picture it takes .* lessons have 320"):
        tensors(sample((said("Tell me.", f"{LONG} [SEG]", 0),)), processor, 320)


def test_an_answer_without_its_mask(processor: Processor) -> None:
    with pytest.raises(DataError, match=r"says 1 \[SEG\] and has 0 masks"):
        tensors(sample((said("A?", "[SEG]."),)), processor, 320)


def test_what_cannot_be_used_is_passed_over_and_told(processor: Processor) -> None:
    good, bad = sample((said("A?", "[SEG].", 0),), name="good"), sample((said(" ", "[SEG].", 0),), name="bad")
    lessons = Lessons(source=Given([bad, good]), processor=processor, max_tokens=320)
    assert lessons[0]["name"] == "good"
    (told,) = lessons[0]["skipped"]
    assert "bad" in told
    assert "empty" in told
    with pytest.raises(DataError, match="bad"):
        replace(lessons, strict=True)[0]
    with pytest.raises(DataError, match="none of 20 lessons"):
        Lessons(source=Given([bad]), processor=processor, max_tokens=320)[0]


def test_other_views_keep_words_and_masks_true() -> None:
    plain = sample((said("Find it.", "[SEG].", 0),))
    half = replace(plain, masks=Masks([lambda: (plain.image[..., 0] > 100).astype(np.uint8)]))
    seen = [augment(half, np.random.default_rng(seed)) for seed in range(20)]
    assert {bool(view.masks[0][0, 0]) for view in seen} == {True, False}
    for view in seen:
        bright = view.image[..., 0] > 60
        assert (bright == view.masks[0].astype(bool)).all()


def test_nothing_is_mirrored_that_speaks_of_sides() -> None:
    left = sample((said("The dog on the left?", "[SEG].", 0),))
    for seed in range(20):
        view = augment(left, np.random.default_rng(seed))
        assert int(view.image[0, 0, 0]) > int(view.image[0, -1, 0])
