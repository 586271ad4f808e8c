"""Draws `docs/images/answer.png`: what the bundled model answers to one fixed question about each example picture.

Run it from anywhere: `python docs/make_pictures.py`.
"""

from pathlib import Path

from lisaseg import Segmenter
from lisaseg.files import make_folder
from lisaseg.images.sheet import contact_sheet

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURE = Path(__file__).parent / "images" / "answer.png"
QUESTIONS = (
    ("scene_0.jpg", "Find the bird."),
    ("scene_1.jpg", "Segment the cat."),
    ("scene_2.jpg", "Which part of the picture is the sheep?"),
    ("scene_3.jpg", "Where is the fish in this image?"),
    ("scene_0.jpg", "Segment the train and the bird."),
    ("cat.jpg", "Segment the cat."),
)
"""Fixed before the answers were seen; the last one, a photograph, is beyond what nano knows."""


def main() -> None:
    """Asks and draws."""
    segmenter = Segmenter.load()
    answers = segmenter.segment_batch([(EXAMPLES / name, question) for name, question in QUESTIONS])
    make_folder(PICTURE.parent)
    cells = [(answer.overlay(), f'"{answer.instruction}" - {answer.text}') for answer in answers]
    contact_sheet(cells, columns=3, cell=(360, 280)).save(PICTURE)


if __name__ == "__main__":
    main()
