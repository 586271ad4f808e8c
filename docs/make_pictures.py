"""Draws what the bundled model answers: `docs/images/answer.png`, one fixed question about each example picture, and
`docs/images/refine.png`, a mask corrected by clicks.

Run it from anywhere: `python docs/make_pictures.py`.
"""

from pathlib import Path

from PIL import Image, ImageDraw

from lisaseg import Segmenter
from lisaseg.files import make_folder
from lisaseg.images.sheet import contact_sheet

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = Path(__file__).parent / "images"
QUESTIONS = (
    ("scene_0.jpg", "Find the bird."),
    ("scene_1.jpg", "Segment the cat."),
    ("scene_2.jpg", "Which part of the picture is the sheep?"),
    ("scene_3.jpg", "Where is the fish in this image?"),
    ("scene_0.jpg", "Segment the train and the bird."),
    ("cat.jpg", "Segment the cat."),
)
"""Fixed before the answers were seen; the last one, a photograph, is beyond what nano knows."""


REFINED = ("scene_0.jpg", "Find the bird.")
CLICKS = ((68, 120, -1), (300, 300, +1))
"""On what is wrong, and on another thing, to have it too."""


def main() -> None:
    """Asks and draws."""
    segmenter = Segmenter.load()
    make_folder(PICTURES)
    answers = segmenter.segment_batch([(EXAMPLES / name, question) for name, question in QUESTIONS])
    cells = [(answer.overlay(), f'"{answer.instruction}" - {answer.text}') for answer in answers]
    contact_sheet(cells, columns=3, cell=(360, 280)).save(PICTURES / "answer.png")
    _clicked(segmenter).save(PICTURES / "refine.png")


def _clicked(segmenter: Segmenter) -> Image.Image:
    """The first answer, and what each click makes of its mask."""
    conversation = segmenter.start(EXAMPLES / REFINED[0])
    answer = conversation.ask(REFINED[1])
    cells = [(answer.overlay(), f'"{answer.instruction}" - {answer.text}')]
    (segment,) = answer.segments
    for number, (x, y, sign) in enumerate(CLICKS, 1):
        segment = conversation.refine(segment, [(x, y, sign)])
        shown = conversation.answer(0).overlay()
        for past_x, past_y, past_sign in CLICKS[:number]:
            color = (0, 160, 60) if past_sign > 0 else (210, 30, 30)
            ImageDraw.Draw(shown).ellipse((past_x - 9, past_y - 9, past_x + 9, past_y + 9), color, "white", 3)
        cells.append((shown, f"a click at ({x}, {y}): {'inside' if sign > 0 else 'outside'}"))
    return contact_sheet(cells, columns=3, cell=(360, 280))


if __name__ == "__main__":
    main()
