"""Models on disk: `lisaseg convert`, `merge`, `assemble`, `inspect`, `models`, `version`."""

import importlib.metadata
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lisaseg import __version__
from lisaseg.config import Dtype, LisaRecipe
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, app, require_extra


@app.command(name="convert")
@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Write a model in lisaseg's own layout: safetensors in shards. After an interrupt, the same command goes on."""

    source: Annotated[Positional[str], arg(metavar="SRC")]
    """A published checkpoint: `lisa-7b`, `lisa-13b`, ..., a folder, or a Hugging Face hub id."""
    out: Annotated[Positional[Path], arg(metavar="DST")]
    """A folder that is empty or not there."""
    dtype: Dtype | None = None
    """Precision of the weights; by default each keeps the one it has."""
    vision_tower: str | None = None
    """CLIP, a folder or a hub id, instead of the one that config.json names."""

    def execute(self) -> int:
        """Converts, and says where the model lies."""
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.model.convert import convert

        quieten_libraries(keep_downloads=sys.stderr.isatty())
        try:
            convert(self.source, self.out, dtype=self.dtype, vision_tower=self.vision_tower, progress=terminal.tracked)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("the same command goes on where this one ended") from interrupt
        print(f"The model is in {self.out}; try it: lisaseg segment IMAGE INSTRUCTION --model {self.out}")
        return DONE


@app.command(name="merge")
@dataclass(frozen=True, kw_only=True)
class MergeCommand:
    """Write a model with an adapter merged into it; or one from the weights of the original's own training."""

    adapter: Annotated[Positional[str], arg(metavar="ADAPTER")]
    """What `lisaseg train` left in `adapter/`, a hub id, or a pytorch_model.bin of DeepSpeed's zero_to_fp32."""
    base: str
    """The model that was trained."""
    out: Path
    """Folder for the merged model, empty or not there."""
    dtype: Dtype = "fp16"
    """Precision of the weights."""
    lora_alpha: int = LisaRecipe.lora_alpha
    """Strength of the changes in a pytorch_model.bin, which does not say it."""

    def execute(self) -> int:
        """Merges, and says where the model lies."""
        require_extra("train", ("peft",))
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.model.merge import merge

        quieten_libraries(keep_downloads=sys.stderr.isatty())
        merge(self.adapter, self.base, self.out, dtype=self.dtype, lora_alpha=self.lora_alpha)
        print(f"The model is in {self.out}; try it: lisaseg segment IMAGE INSTRUCTION --model {self.out}")
        return DONE


@app.command(name="assemble")
@dataclass(frozen=True, kw_only=True)
class AssembleCommand:
    """Put together the model that a LISA starts from: LLaVA, SAM and CLIP, with a new `[SEG]` and projection."""

    llava: Annotated[Positional[str], arg(metavar="LLAVA")]
    """LLaVA v1: a folder or hub id."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the model, empty or not there."""
    sam: Path
    """SAM's sam_vit_h_4b8939.pth."""
    vision_tower: str | None = None
    """CLIP, a folder or hub id, instead of the one that LLaVA's config.json names."""
    dtype: Dtype = "bf16"
    """Precision of the weights; SAM's and the new ones are kept in fp32."""
    seed: int = 0
    """Decides the new weights."""

    def execute(self) -> int:
        """Assembles, and says what to do with it."""
        from lisaseg.model.assemble import assemble
        from lisaseg.model.checkpoints import quieten_libraries

        quieten_libraries(keep_downloads=sys.stderr.isatty())
        assemble(self.llava, self.sam, self.out, vision_tower=self.vision_tower, dtype=self.dtype, seed=self.seed)
        print(
            f"The model is in {self.out}; train it: lisaseg train lisa-7b --model {self.out} --data-root DIR --out RUN"
        )
        return DONE


@app.command(name="inspect")
@dataclass(frozen=True, kw_only=True)
class InspectCommand:
    """Show what a model is and how much memory it takes, without loading it; weights on the hub are not fetched."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """`nano`, `lisa-7b`, `lisa-13b`, ..., a folder, or a Hugging Face hub id."""
    vision_tower: str | None = None
    """CLIP, a folder or a hub id, instead of the one that a published config.json names."""
    json: bool = False
    """Print one line of JSON and nothing else."""

    def execute(self) -> int:
        """Reads settings and headers alone."""
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.model.summary import summarize

        quieten_libraries(keep_downloads=sys.stderr.isatty())
        summary = summarize(self.model, vision_tower=self.vision_tower)
        if self.json:
            print(json.dumps(summary.to_dict()))
        else:
            terminal.show_summary(summary)
        return DONE


@app.command(name="models")
@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the models that go by name: bundled ones, those fetched from the hub, and published ones still there."""

    json: bool = False
    """Print one line of JSON for each model and nothing else."""

    def execute(self) -> int:
        """Reads sizes and headers; loads no model."""
        from lisaseg.model.known import known_models

        models = known_models()
        if self.json:
            for model in models:
                print(json.dumps(asdict(model)))
        else:
            terminal.show_models(models)
        return DONE


@app.command(name="version")
@dataclass(frozen=True, kw_only=True)
class VersionCommand:
    """Print the versions of lisaseg and of what it runs on."""

    def execute(self) -> int:
        """Asks the installed packages' metadata, which imports none of them."""
        print(f"lisaseg {__version__}")
        print(f"python {platform.python_version()}")
        for package in ("torch", "transformers"):
            print(f"{package} {importlib.metadata.version(package)}")
        return DONE
