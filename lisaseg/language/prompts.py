"""How a dialogue becomes one text: the templates a model was trained with, and the markers of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from lisaseg.errors import CheckpointError

SEG_TOKEN = "[SEG]"
"""The word that asks for a mask; the state that predicts it becomes the segmenter's prompt."""
IMAGE_MARKER = "<image>"
"""Where the picture stands in a rendered prompt; never in a vocabulary."""
IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
"""Added tokens around the picture."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One conversation format.

    Rendered: `opening`, then per turn `user_prefix` question `user_suffix`, and, where there is an answer,
    `answer_prefix` answer `answer_suffix`. Turns after the first have `later_user_prefix`.
    """

    opening: str = ""
    user_prefix: str
    later_user_prefix: str
    user_suffix: str
    answer_prefix: str = " "
    answer_suffix: str = "</s>"


_LLAVA_V1_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
TEMPLATES = {
    "llava_v1": Template(
        opening=f"{_LLAVA_V1_SYSTEM} ", user_prefix="USER: ", later_user_prefix="USER: ", user_suffix=" ASSISTANT:"
    ),
    "llava_llama_2": Template(
        user_prefix=f"[INST] <<SYS>>\n{_LLAMA_2_SYSTEM}\n<</SYS>>\n\n",
        later_user_prefix="<s>[INST] ",
        user_suffix=" [/INST]",
        answer_suffix=" </s>",
    ),
    "plain": Template(user_prefix="USER: ", later_user_prefix="USER: ", user_suffix=" ASSISTANT:"),
}
"""Templates by name: the two of the official checkpoints, and a short one for models trained from nothing."""


def get_template(name: str) -> Template:
    """The template of that name.

    Raises:
        CheckpointError: no template has that name.
    """
    if name not in TEMPLATES:
        raise CheckpointError(f"unknown conversation template {name!r}; known ones: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]


def render(template: Template, turns: Sequence[tuple[str, str | None]]) -> str:
    """The text of a dialogue over one picture, which is marked at the start of the first question.

    Args:
        turns: (question, answer) in order; an answer of None leaves the text open for the model to go on.
    """
    text = template.opening
    for number, (question, answer) in enumerate(turns):
        marked = f"{IMAGE_START}{IMAGE_MARKER}{IMAGE_END}\n{question}" if number == 0 else question
        prefix = template.user_prefix if number == 0 else template.later_user_prefix
        text += f"{prefix}{marked}{template.user_suffix}"
        if answer is not None:
            text += f"{template.answer_prefix}{answer}{template.answer_suffix}"
    return text


SHORT_QUESTIONS = (
    "Can you segment the {phrase} in this image?",
    "Please segment the {phrase} in this image.",
    "What is {phrase} in this image? Please respond with segmentation mask.",
    "What is {phrase} in this image? Please output segmentation mask.",
)
"""How LISA was asked for what a phrase names, in lower case."""
LONG_QUESTIONS = (
    "{sentence} Please respond with segmentation mask.",
    "{sentence} Please output segmentation mask.",
)
"""How LISA was asked for what a whole sentence means."""
EXPLANATORY_REQUESTS = (
    "Please output segmentation mask and explain why.",
    "Please output segmentation mask and explain the reason.",
    "Please output segmentation mask and give some explanation.",
)
"""What follows a request where the answer is to be explained."""
ANSWERS = (
    f"It is {SEG_TOKEN}.",
    f"Sure, {SEG_TOKEN}.",
    f"Sure, it is {SEG_TOKEN}.",
    f"Sure, the segmentation result is {SEG_TOKEN}.",
    f"{SEG_TOKEN}.",
)
"""How LISA was taught to answer."""
ABSENT_ANSWER = "There is no such thing in this image."
"""An answer without a mask; the original never gives one."""
VALIDATION_ANSWER = f"{SEG_TOKEN}."
"""The answer that the original's measurements put into the model's mouth."""


def validation_question(text: str, *, is_sentence: bool) -> str:
    """The question of the original's measurements, which always ask the same way.

    The original has one more space before it, which its tokenizer drops.
    """
    return f"{text if is_sentence else f'What is {text} in this image?'} Please output segmentation mask."
