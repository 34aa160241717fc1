"""An answer in words for a person: whether it stands or is left to a person, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 3
"""Classes named in one sentence; of more it is said how many they are."""

ADVICE = {
    "dark": "The image is too dark for an answer",
    "bright": "The image is too bright for an answer",
    "blurred": "The image is too blurred for an answer",
    "unlike": "The image is not of the kind that the model was trained on",
    "threshold": "The answer is less certain than was asked for",
}
"""What is said for each reason to refer (``medic.referral.REASONS``) but ``several``."""

CALIBRATED = "The probabilities are {}."
NOT_CALIBRATED = "The numbers are not calibrated: 0.80 does not mean right in 80 of 100 images."


def advise(answer: dict) -> str:
    """Say in a sentence whether one answer is left to a person, and why; "" where the bundle never refers.

    Args:
        answer: one of ``Predictor.answers``; with a referral rule it has ``set``, ``refer`` and ``why``.
    """
    if "refer" not in answer:
        return ""
    names = [name[:1].upper() + name[1:].replace("_", " ") for name in answer["set"]]
    if answer["why"] == "several":
        # Grades are contiguous: the first and the last say all.
        told = f"Between {names[0]} and {names[-1]}" if "grade" in answer or len(names) == 2 else _joined(names, "or")
        return f"{told}; please refer."
    if answer["refer"]:
        return f"{ADVICE[answer['why']]}; please refer."
    return f"Possible {'is' if len(names) == 1 else 'are'} {_joined(names)}." if names else "No class is possible."


def explain_numbers(answer: dict) -> str:
    """Say in a sentence what the probabilities of an answer mean."""
    calibration = answer.get("calibration")
    return CALIBRATED.format(calibration) if calibration else NOT_CALIBRATED


def _joined(names: Sequence[str], word: str = "and") -> str:
    parts = [*names[:NAMED], *([f"{len(names) - NAMED} more"] if len(names) > NAMED else [])]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
