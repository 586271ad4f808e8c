import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lisaseg.config import AskOptions, Dtype, LoadOptions
from lisaseg.errors import CheckpointError, DeviceError, OutputError
from lisaseg.language.prompts import TEMPLATES, render
from lisaseg.language.tokenizer import IMAGE_ID
from lisaseg.model.checkpoints import check_fit, load_model, open_checkpoint, save_model
from lisaseg.model.devices import DTYPES
from lisaseg.model.memory import skeleton
from lisaseg.model.official import read_official_config, rename
from lisaseg.segmenter import Segmenter


def a_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def copy(tiny_model: str, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_saved_model_loads_to_the_same_weights(tiny_model: str, tmp_path: Path) -> None:
    lisa, processor = load_model(tiny_model, LoadOptions())
    save_model(lisa, processor, tmp_path / "again", torch.float32)
    again, again_processor = load_model(str(tmp_path / "again"), LoadOptions())
    for (name, one), (_, other) in zip(lisa.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert again_processor.encode([("Segment the dog.", None)]) == processor.encode([("Segment the dog.", None)])
    assert not again.training


def test_half_precision_on_disk_becomes_the_precision_asked_for(tiny_model: str, tmp_path: Path) -> None:
    lisa, processor = load_model(tiny_model, LoadOptions())
    save_model(lisa, processor, tmp_path / "half", torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    assert load_model(str(tmp_path / "half"), LoadOptions())[0].dtype == torch.float32
    assert load_model(str(tmp_path / "half"), LoadOptions(dtype="fp16"))[0].dtype == torch.float16
    assert lisa.dtype == torch.float32


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model: it has no config\.json"):
        load_model(str(tmp_path), LoadOptions())


def test_another_kind_of_model_is_named(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="is a 'bert' model"):
        load_model(str(copy), LoadOptions())


def test_a_damaged_configuration_is_named(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_model(str(copy), LoadOptions())


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_model(str(copy), LoadOptions())


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("trouble", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_listed(copy: Path, trouble: str) -> None:
    weights = load_file(copy / "model.safetensors")
    if trouble == "missing":
        del weights["projection.0.weight"]
    elif trouble == "unexpected":
        weights["projection.9.weight"] = torch.zeros(1)
    else:
        weights["projection.0.weight"] = torch.zeros(2, 2)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"projection\.[09]\.weight"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("name", ["tokenizer.model", "added_tokens.json", "preprocessor_config.json"])
def test_a_missing_side_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_model(str(copy), LoadOptions())


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    (copy / "added_tokens.json").write_text(json.dumps({"[SEG]": 90000, "<im_start>": 90001, "<im_end>": 90002}))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize(
    ("device", "message"), [("abacus", "unknown device 'abacus'"), ("cuda:97", "not to be had on this machine")]
)
def test_an_absent_device_is_refused(tiny_model: str, device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        load_model(tiny_model, LoadOptions(device=device))


@pytest.mark.parametrize(
    ("key", "value"),
    [("vlm_config", {"text_config": "llama"}), ("max_prompt_tokens", "many"), ("max_prompt_tokens", 100_000)],
)
def test_a_configuration_that_makes_no_network_is_refused(copy: Path, key: str, value: object) -> None:
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(CheckpointError, match=r"describes no LISA network|leaves no room for words"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "added_tokens.json"])
def test_a_list_in_place_of_a_record_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_text("[]")
    with pytest.raises(CheckpointError):
        load_model(str(copy), LoadOptions())


def test_a_model_that_cannot_be_written_leaves_nothing(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lisa, processor = load_model(tiny_model, LoadOptions())
    with pytest.raises(OutputError):
        save_model(lisa, processor, tmp_path / "file" / "model")


def change(folder: Path, **fields: object) -> None:
    """Sets fields of config.json; a field of None is removed."""
    record = {**json.loads((folder / "config.json").read_text()), **fields}
    kept = {name: value for name, value in record.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def rewrite(folder: Path, change_weights: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes the tensors of a published folder."""
    weights = dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
    change_weights(weights)
    torch.save(weights, folder / "pytorch_model.bin")


class TestPublished:
    """Folders in the published layout that are not what they should be."""

    @pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
    def test_every_part_is_in_the_precision_asked_for(self, published: Path, dtype: Dtype) -> None:
        segmenter = Segmenter.load(published, device="cpu", dtype=dtype)
        lisa = segmenter.lisa
        kept = {name for name, parameter in lisa.named_parameters() if parameter.dtype != DTYPES[dtype]}
        positions, neck = "shared_image_embedding", "vision_encoder.neck"
        allowed = {"fp32": (), "bf16": (positions,), "fp16": (positions, neck)}[dtype]
        assert {name for name in kept if not any(part in name for part in allowed)} == set()
        assert {part for part in allowed if not any(part in name for name in kept)} == set()
        answer = segmenter.segment(a_picture(), "Segment it.", options=AskOptions(max_new_tokens=5))
        assert answer.raw_text is not None

    @pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("parity", [False, True])
    def test_clicks_and_pictures_have_the_same_positions(self, published: Path, dtype: Dtype, parity: bool) -> None:
        for name in ("nano", str(published)):
            lisa, _ = load_model(name, LoadOptions(device="cpu", dtype=dtype, parity=parity))
            of_pictures = lisa.segmenter.shared_image_embedding.positional_embedding
            of_clicks = lisa.segmenter.prompt_encoder.shared_embedding.positional_embedding
            assert of_pictures.dtype == of_clicks.dtype
            assert torch.equal(of_pictures, of_clicks)

    def test_parity_has_positions_in_the_precision_of_the_model(self, published: Path) -> None:
        options = LoadOptions(device="cpu", dtype="bf16", parity=True)
        lisa, _ = load_model(str(published), options)
        assert lisa.segmenter.get_image_wide_positional_embeddings().dtype == torch.bfloat16

    @pytest.mark.parametrize(
        ("trouble", "message"),
        [
            ("missing", r"missing keys: vlm\.model\.language_model\.norm\.weight"),
            ("unexpected", r"unexpected keys: model\.extra\.weight"),
            ("mismatched", r"mismatched keys: projection\.0\.weight is \[2, 2\] instead of \[64, 64\]"),
            ("dtype", r"wrong dtype: projection\.0\.weight \(torch\.int64\); expected float32"),
        ],
    )
    def test_weights_that_do_not_fit_are_listed(self, published: Path, trouble: str, message: str) -> None:
        def spoil(weights: dict[str, torch.Tensor]) -> None:
            if trouble == "missing":
                del weights["model.norm.weight"]
            elif trouble == "unexpected":
                weights["model.extra.weight"] = torch.ones(1)
            elif trouble == "mismatched":
                weights["model.text_hidden_fcs.0.0.weight"] = torch.ones(2, 2)
            else:
                weights["model.text_hidden_fcs.0.0.weight"] = torch.ones(64, 64, dtype=torch.int64)

        rewrite(published, spoil)
        with pytest.raises(CheckpointError, match=message):
            load_model(str(published), LoadOptions())

    def test_a_llava_without_lisa_is_told_apart(self, published: Path) -> None:
        def strip(weights: dict[str, torch.Tensor]) -> None:
            for name in [name for name in weights if "visual_model" in name or "text_hidden_fcs" in name]:
                del weights[name]

        rewrite(published, strip)
        with pytest.raises(CheckpointError, match=r"is a LLaVA model without LISA's parts .*; supported are LISA v1"):
            load_model(str(published), LoadOptions())

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"mm_projector_type": "mlp2x_gelu"}, r"is a LISA\+\+ checkpoint, on LLaVA 1\.5; supported are LISA v1"),
            ({"mm_projector_type": "mlp2x_gelu", "out_dim": None}, r"is a LISA\+\+ checkpoint"),
            ({"text_config": {}}, "is a LLaVA model of transformers, without LISA's parts"),
            ({"model_type": "llava_llama"}, "is a 'llava_llama' model; expected a LISA checkpoint"),
            ({"mm_use_im_start_end": False}, "marks or selects picture tokens as no LISA v1 checkpoint does"),
            ({"mm_hidden_size": 1024}, r"a vision tower 1024 wide, and the one given is 32 wide"),
            ({"hidden_size": None}, r"config\.json describes no LISA network: it lacks 'hidden_size'"),
            ({"vision_tower": None, "mm_vision_tower": None}, "names no vision tower; .* --vision-tower"),
            ({"vision_tower": "openai/clip-vit-large-patch14"}, "vision tower of .* cannot be had .*--vision-tower"),
        ],
    )
    def test_a_configuration_of_something_else(self, published: Path, fields: dict[str, object], message: str) -> None:
        change(published, **fields)
        with pytest.raises(CheckpointError, match=message):
            load_model(str(published), LoadOptions())

    def test_a_v0_checkpoint_is_told_apart(self, published: Path) -> None:
        torch.save({"x": torch.ones(1)}, published / "pytorch_model-visual_model.bin")
        with pytest.raises(CheckpointError, match=r"is a LISA v0 checkpoint.*supported are LISA v1"):
            load_model(str(published), LoadOptions())

    def test_an_unmerged_training_is_told_apart(self, published: Path) -> None:
        rewrite(published, lambda weights: weights.update({"base_model.model.x": torch.ones(1)}))
        with pytest.raises(CheckpointError, match="the state of a training with LoRA; merge it first"):
            load_model(str(published), LoadOptions())

    def test_the_vision_tower_may_lie_elsewhere(self, published: Path, tmp_path: Path) -> None:
        elsewhere = (published / "clip").rename(tmp_path / "tower")
        with pytest.raises(CheckpointError, match=r"vision tower .* cannot be had"):
            load_model(str(published), LoadOptions())
        load_model(str(published), LoadOptions(vision_tower=str(elsewhere)))

    def test_the_whole_of_clip_serves_as_its_vision_tower(self, published: Path) -> None:
        path = published / "clip" / "pytorch_model.bin"
        more = {"text_model.embeddings.position_ids": torch.ones(1), "logit_scale": torch.ones(1)}
        torch.save({**torch.load(path, weights_only=True), **more}, path)
        record = json.loads((published / "clip" / "config.json").read_text())
        (published / "clip" / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": record}))
        load_model(str(published), LoadOptions())

    def test_without_a_preprocessor_pictures_are_made_ready_as_for_the_published_clip(self, published: Path) -> None:
        _, processor = load_model(str(published), LoadOptions())
        (published / "clip" / "preprocessor_config.json").unlink()
        _, other = load_model(str(published), LoadOptions())
        assert torch.equal(processor.pixels([a_picture()]).vlm, other.pixels([a_picture()]).vlm)

    def test_files_of_clip_as_they_were_written_in_2021(self, published: Path) -> None:
        """Settings of generation among the vision tower's, sizes as bare numbers, an extractor by its old name."""
        lisa, processor = load_model(str(published), LoadOptions())
        record = json.loads((published / "clip" / "config.json").read_text())
        old: dict[str, object] = dict(
            bad_words_ids=None, do_sample=False, dropout=0.0, num_beams=1, top_k=50, torchscript=False
        )
        old |= dict(
            decoder_start_token_id=None, pruned_heads={}, return_dict=True, use_bfloat16=False, torch_dtype=None
        )
        whole = {"model_type": "clip", "text_config": {}, "vision_config": {**old, **record, "torch_dtype": None}}
        (published / "clip" / "config.json").write_text(json.dumps(whole))
        images = json.loads((published / "clip" / "preprocessor_config.json").read_text())
        bare = {"crop_size": 224, "size": 224, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}
        flags = {"do_center_crop": True, "do_normalize": True, "do_resize": True}
        numbers = {name: images[name] for name in ("image_mean", "image_std")}
        (published / "clip" / "preprocessor_config.json").write_text(json.dumps({**bare, **flags, **numbers}))
        again, other = load_model(str(published), LoadOptions())
        pixels, other_pixels = (p.pixels([a_picture()]).vlm for p in (processor, other))
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(lisa.see(pixels), again.see(pixels))

    @pytest.mark.parametrize("text", ["{", "[1]", '{"sam": 3}', '{"sams": {}}', '{"sam": {"depth": 2}}'])
    def test_a_side_file_with_nonsense_is_named(self, published: Path, text: str) -> None:
        (published / "lisaseg.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"lisaseg\.json"):
            load_model(str(published), LoadOptions())

    def test_without_a_side_file_sam_is_vit_h(self, published: Path) -> None:
        (published / "lisaseg.json").unlink()
        sam = open_checkpoint(str(published)).config.sam
        assert (sam.hidden_size, sam.num_hidden_layers, sam.global_attn_indexes) == (1280, 32, [7, 15, 23, 31])
        with pytest.raises(CheckpointError, match=r"do not fit its config\.json: missing keys"):
            check_fit(open_checkpoint(str(published)))

    def test_a_template_may_be_named(self, published: Path) -> None:
        side = json.loads((published / "lisaseg.json").read_text())
        (published / "lisaseg.json").write_text(json.dumps({**side, "template": "llava_llama_2"}))
        _, processor = load_model(str(published), LoadOptions())
        question = [("Segment the left one.", None)]
        spelled = render(TEMPLATES["llava_llama_2"], question)
        assert [i for i in processor.encode(question) if i != IMAGE_ID] == [
            i for i in processor.tokenizer.encode_with_image(spelled) if i != IMAGE_ID
        ]

    def test_our_own_layout_takes_no_other_vision_tower(self, tiny_model: str) -> None:
        with pytest.raises(CheckpointError, match="holds its own vision tower"):
            load_model(tiny_model, LoadOptions(vision_tower="openai/clip-vit-large-patch14"))


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_every_published_name_has_its_place(size: str) -> None:
    """The complete manifests of names and shapes, against the network that their configuration makes."""
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    shapes = json.loads((benchmarks / f"keys_{size}.json").read_text("utf-8"))
    record = runpy.run_path(str(benchmarks / "make_official.py"))["SIZES"][size] | {"mm_hidden_size": 1024}
    vision = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14)
    config = read_official_config(Path("nowhere"), record, vision)
    renamed = rename({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    own = {name: tensor.shape for name, tensor in skeleton(config).state_dict().items()}
    tied = "segmenter.prompt_encoder.shared_embedding.positional_embedding"
    assert {name for name in own if "vision_tower" not in name and name != tied} == set(renamed)
    assert {name: tuple(tensor.shape) for name, tensor in renamed.items()} == {
        name: tuple(own[name]) for name in renamed
    }
