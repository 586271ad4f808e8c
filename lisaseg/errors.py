"""What a user may see go wrong: one family of errors whose messages say what was expected, what came and what to do."""


class LisaError(Exception):
    """Base of every error that a user can cause and mend. Surfaces show its message alone, never a traceback."""


class CheckpointError(LisaError):
    """A model could not be found, read or matched to the network."""


class ConversationError(LisaError):
    """A conversation cannot go on: it is closed, belongs to another model, is damaged, or lacks what was asked for."""


class DataError(LisaError):
    """A training or evaluation source is missing, malformed or contradicts itself."""


class DeviceError(LisaError):
    """The device or dtype asked for is not to be had on this machine."""


class ImageError(LisaError):
    """A picture is missing, unreadable or beyond the size limit."""


class InstructionError(LisaError):
    """An instruction is empty or longer than the model can read, or a click or box is not in the picture."""


class MissingExtraError(LisaError):
    """An optional dependency is absent; the message names the extra that brings it."""


class OutputError(LisaError):
    """A result could not be written; nothing half-written is left behind."""


class TrainingError(LisaError):
    """A training cannot go on, such as with a loss that is no number; what it had saved stays."""
