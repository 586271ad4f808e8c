"""Segment what an instruction means: a multimodal language model says `[SEG]`, and a promptable segmenter draws it.

The names below load on first use, so that `import lisaseg` and `lisaseg --help` never wait for torch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskOptions",
    "Conversation",
    "Done",
    "LisaError",
    "Segment",
    "SegmentReady",
    "Segmenter",
    "TextDelta",
]

_HOMES = {
    "Answer": "lisaseg.values",
    "AskOptions": "lisaseg.config",
    "Conversation": "lisaseg.conversation",
    "Done": "lisaseg.values",
    "LisaError": "lisaseg.errors",
    "Segment": "lisaseg.values",
    "SegmentReady": "lisaseg.values",
    "Segmenter": "lisaseg.segmenter",
    "TextDelta": "lisaseg.values",
}

if TYPE_CHECKING:
    from lisaseg.config import AskOptions
    from lisaseg.conversation import Conversation
    from lisaseg.errors import LisaError
    from lisaseg.segmenter import Segmenter
    from lisaseg.values import Answer, Done, Segment, SegmentReady, TextDelta
else:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> object:
        """Import an exported name from its home; an unknown one raises AttributeError."""
        if name not in _HOMES:
            raise AttributeError(f"module 'lisaseg' has no attribute {name!r}; it exports {', '.join(__all__)}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The exported names and the module's own dunders."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
