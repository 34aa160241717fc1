"""What the library raises: a sentence for a person, saying what is wrong, where, and what to do."""

from typing import Literal


class MedicError(Exception):
    """Anything that a person can mend: a wrong path, a label outside the task, a port in use."""


ImageReason = Literal["empty", "unsupported", "truncated", "unreadable", "too_large"]


class ImageError(MedicError):
    """Bytes that cannot become pixels.

    Attributes:
        reason: one word for tables and for HTTP answers: ``empty``, ``unsupported`` (no image, or a format that is
            not read), ``truncated``, ``unreadable`` (damaged inside) or ``too_large`` (more pixels than allowed).
    """

    def __init__(self, message: str, reason: ImageReason):
        super().__init__(message)
        self.reason = reason
