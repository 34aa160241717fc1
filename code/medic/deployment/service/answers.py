"""How sure an answer is, in words for a person: what is close, what reaches its threshold, what the numbers are not."""

from __future__ import annotations

from collections.abc import Sequence

from medic.task import NO_FINDING, Task

CLOSE = 1.5
"""Odds that differ by less than this factor are called close: 0.54 against 0.46, or 0.35 with a threshold of 0.30. Odds
and not differences, because rare classes have small thresholds: 0.02 is far from 0.06."""

NAMED = 3
"""Classes named in one sentence; of more it is said how many they are."""


def explain_in_words(task: Task, answer: dict, thresholds: Sequence[float] | None = None) -> str:
    """Say how sure the model is of one answer, in a few sentences.

    Nothing is said that the numbers do not show: close classes are called close, and that probabilities are not
    calibrated is part of the text, because no objective of this library calibrates them.

    Args:
        task: the question that was answered.
        answer: one of ``Predictor.answers``: ``probabilities`` by class, and ``label``, ``grade`` with
            ``grade_continuous``, or ``classes``.
        thresholds: the operating point as in ``Prediction``: one a class for multilabel tasks, one for the second of
            two classes; None where none was chosen.
    """
    chances = {name: float(answer["probabilities"][name]) for name in task.classes}
    if task.kind == "multilabel":
        said = _present(task, chances, answer["classes"], thresholds)
    elif task.kind == "ordinal":
        said = _graded(task, chances, answer["grade_continuous"])
    elif thresholds is not None:
        said = _against_threshold(task, chances, answer["label"], thresholds[0])
    else:
        said = _ranked(chances)
    return f"{said} {_what_the_numbers_are(task, chances)}"


def _ranked(chances: dict[str, float]) -> str:
    """The most probable class and what comes after it."""
    (first, most), *others = sorted(chances.items(), key=lambda item: -item[1])
    rivals = [name for name, chance in others if _odds(most) < CLOSE * _odds(chance) or chance == most]
    second, next_most = others[0]
    if rivals:
        undecided = f"{_listed([first, *rivals])} are close"
        return f"{undecided} ({' and '.join(_apart(most, next_most))}): the model cannot tell which of them it is."
    if most < 0.5:
        return (
            f"{_plain(first)} is ahead with {_number(most)}, which is less than half; {_plain(second)} follows with "
            f"{_number(next_most)}."
        )
    if next_most < 0.005:
        return f"{_plain(first)} is clearly ahead with {_number(most)}; no other class comes near."
    return f"{_plain(first)} is clearly ahead with {_number(most)}; {_plain(second)} follows with {_number(next_most)}."


def _graded(task: Task, chances: dict[str, float], grade: float) -> str:
    top = len(task.classes) - 1
    place = f"The continuous grade is {grade:.2f} on the scale from 0 to {top}."
    (first, most), (second, next_most) = sorted(chances.items(), key=lambda item: -item[1])[:2]
    if _odds(most) >= CLOSE * _odds(next_most):
        return f"{place} {_ranked(chances)}"
    close = f"{place} {_listed([first, second])} are close ({' and '.join(_apart(most, next_most))})"
    if abs(task.classes.index(first) - task.classes.index(second)) == 1:
        return f"{close}: the image lies between these two grades."
    return f"{close} and are no neighbours on the scale: the model is unsure of this image."


def _against_threshold(task: Task, chances: dict[str, float], label: int, threshold: float) -> str:
    """Two classes, of which the second is said from a threshold on."""
    first, second = task.classes
    chance = chances[second]
    near = _near(chance, threshold)
    where = ("just " if near else "clearly ") + ("above" if label else "below")
    value, limit = _apart(chance, threshold)
    said = f"{_plain(second)} has {value}, {where} its threshold of {limit}"
    said += ": a slightly different picture could turn the answer." if near else "."
    if (chance > 0.5) != bool(label) and chance != 0.5:
        likelier = _plain(first if label else second)
        said += f" {likelier} has the higher number, but the threshold decides."
    return said


def _present(task: Task, chances: dict[str, float], classes: Sequence[str], thresholds: Sequence[float] | None) -> str:
    """Several classes, each said from its own threshold on."""
    limits = dict(zip(task.classes, thresholds or [0.5] * len(task.classes), strict=True))
    clearest_first = sorted(task.classes, key=lambda name: -_odds(chances[name]) / _odds(limits[name]))
    present = [name for name in clearest_first if name in classes]
    missed = [name for name in clearest_first if name not in classes and _near(chances[name], limits[name])]
    count = len(task.classes)
    if not present:
        nearest = clearest_first[0]
        value, limit = _apart(chances[nearest], limits[nearest])
        how = "just below" if nearest in missed else "the nearest"
        said = f"None of the {count} classes reaches its threshold; {how} is {_plain(nearest)} with {value} of {limit}."
        return f"{said} That does not show that nothing is there."
    told = []
    for name in present[:NAMED]:
        value, limit = _apart(chances[name], limits[name])
        how = "just" if _near(chances[name], limits[name]) else "clearly"
        told.append(f"{_plain(name)} {how} ({value}, threshold {limit})")
    if len(present) > NAMED:
        told.append(f"{len(present) - NAMED} more")
    reach = "reaches its threshold" if len(present) == 1 else "reach their thresholds"
    said = f"{len(present)} of {count} classes {reach}: {_joined(told)}."
    if missed:
        said += f" Just below {'its threshold' if len(missed) == 1 else 'their thresholds'}: {_listed(missed)}."
    if NO_FINDING in present and len(present) > 1:
        said += f" {NO_FINDING} together with a finding contradicts itself: the model is unsure of this image."
    return said


def _what_the_numbers_are(task: Task, chances: dict[str, float]) -> str:
    if task.kind == "ordinal" and sum(chance > 0 for chance in chances.values()) <= 2:
        return "The numbers are shares of the nearest grades, not calibrated probabilities."
    return "The numbers are the model's own and not calibrated: 0.80 does not mean right in 80 of 100 images."


def _near(chance: float, threshold: float) -> bool:
    return 1 / CLOSE < _odds(chance) / _odds(threshold) < CLOSE


def _odds(chance: float) -> float:
    bounded = min(max(chance, 1e-9), 1 - 1e-9)
    return bounded / (1 - bounded)


def _number(chance: float) -> str:
    """Two digits that mean something; never a certainty that rounding made."""
    if 0.995 <= chance < 1:
        return "over 0.99"
    if 0 < chance < 0.001:
        return "under 0.001"
    return f"{chance:.2f}" if chance >= 0.095 or not chance else f"{chance:.2g}"


def _apart(one: float, other: float) -> list[str]:
    """Two numbers with as many digits as it takes to tell them apart."""
    for digits in (None, 3, 4, 5):
        both = [_number(value) if digits is None else f"{value:.{digits}f}" for value in (one, other)]
        if both[0] != both[1] or one == other:
            break
    return both


def _plain(name: str) -> str:
    return (name[:1].upper() + name[1:]).replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return _joined([*map(_plain, names[:NAMED]), *more])


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
