"""Slices: how well a model does on parts of the images, and which parts differ from the rest by more than chance."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from medic.errors import MedicError
from medic.modeling import metrics
from medic.task import TASKS

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation

AGES = (-math.inf, 20, 40, 60, 80, math.inf)
"""Bands of age in years (Seyyed-Kalantari et al., Nature Medicine 27, 2021, p. 2176)."""
COLUMNS = ["column", "slice", "metric", "images", "patients", "value", "low", "high", "gap", "gap_low", "gap_high"]
COLUMNS += ["p", "p_holm", "needed", "note"]

_NO_GROUPS = ["image", "patient", "split", "label", "class", "file", "group", "note", "diagnosis", "corrected"]
_NO_GROUPS += ["patient_source", *(name for task in TASKS.values() for name in task.classes)]


def slices(
    evaluation: "Evaluation", columns: Sequence[str] | None = None, metric: str | None = None, draws: int = 2000
) -> pd.DataFrame:
    """Compare each slice of the images with all others.

    A slice has one value of a column (``banded``). The p-value of its gap to the rest is that of a permutation test:
    how often a gap as wide comes about where patients are dealt to the slice at random. Holm's correction (Scand. J.
    Stat. 6(2), 1979, p. 65) holds the chance of one false alarm among all rows at 5 %: the worst of twenty slices is no
    discovery. A column of two values is one question, and counts once.

    Args:
        evaluation: of any task.
        columns: of its records, such as ``sex``, ``age``, ``view``, or measured ones that were joined to them
            (``medic.data.check.measure``). When None, all numbers, and words of two to twelve values: one with more
            tells images apart rather than groups of patients.
        metric: of the task by name; when None the (mean) area under the ROC curve where presence is asked, else the
            accuracy.
        draws: bootstrap samples and permutations.

    Returns:
        One row a slice: ``column``, ``slice``, ``metric``, ``images``, ``patients``; ``value`` with its 95 % interval
        ``low`` and ``high``; ``gap`` to the rest with ``gap_low`` and ``gap_high``; ``p`` and, corrected, ``p_holm``;
        ``needed``, the patients it takes to tell such a gap (``patients_needed``); ``note``, why it is not judged
        (fewer than ten patients in it or in the rest, or of either kind where the metric asks for both), or empty.

    Raises:
        MedicError: the records lack a column.
    """
    records, task = evaluation.records, evaluation.task
    metric = metric or (list(metrics.metrics_for(task))[-1] if task.thresholds else "accuracy")
    missing = [column for column in columns or () if column not in records]
    if missing:
        raise MedicError(f"there is no column {missing[0]!r} to slice by; the records have {', '.join(records)}")
    rows = []
    if columns is None:
        counts = records.drop(columns=[*_NO_GROUPS, *task.classes], errors="ignore").nunique()
        columns = [name for name, n in counts.items() if n > 1 and (n <= 12 or _is_number(records[name]))]
    for column in columns:
        of = banded(records[column])
        for value in of.cat.categories:
            what = {"column": column, "slice": value, "metric": metric}
            rows.append(what | _compared(evaluation, metric, (of == value).to_numpy(), draws))
    table = pd.DataFrame(rows, columns=COLUMNS)
    asked = ~(table["column"].duplicated() & (table.groupby("column")["slice"].transform("size") == 2))
    ordered = table.loc[asked, "p"].dropna().sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1).reindex(table.index)
    return table.assign(p_holm=corrected.where(asked, corrected.shift()))


def _compared(evaluation: "Evaluation", metric: str, inside: np.ndarray, draws: int) -> dict:
    """One row of ``slices`` for the images ``inside``, bool (N,)."""
    function, said, truth = metrics.metrics_for(evaluation.task)[metric], evaluation.prediction, evaluation.truth
    whose, sides = evaluation.whose, (inside, ~inside)
    value, rest = (metrics.score(function, truth[side], said.rows(side)) if side.any() else np.nan for side in sides)
    row = {"images": inside.sum(), "patients": len(np.unique(whose[inside])), "value": value}
    few = [note for side in sides if (note := metrics.too_few(metric, truth[side], whose[side]))]
    if few:
        return row | {"note": f"not judged: {few[0]}"}

    def of_both(_truth: np.ndarray, _said: object, counts: np.ndarray) -> np.ndarray:
        return np.stack([function(truth[side], said.rows(side), counts[:, side]) for side in sides], axis=1)

    drawn = metrics.resampled(of_both, truth, said, whose, draws=draws, seed=evaluation.seed)
    low, high, note = metrics.interval_of(metric, truth[inside], said.decided[inside], whose[inside], drawn[:, 0])
    gap, gaps = value - rest, drawn[:, 0] - drawn[:, 1]
    parts = np.array_split(dealt(inside, whose, draws, evaluation.seed), -(-draws * len(truth) // 4_000_000))
    chance = np.abs(np.concatenate([function(truth, said, one) - function(truth, said, ~one) for one in parts]))
    chance = chance[~np.isnan(chance)]
    row |= {"low": low, "high": high, "note": note, "gap": gap, "p": (1 + (chance >= abs(gap) - 1e-12).sum())}
    row |= {"p": row["p"] / (1 + len(chance)), "needed": patients_needed(gap, np.nanstd(gaps), evaluation.patients)}
    return row | dict(zip(("gap_low", "gap_high"), metrics.interval(gaps), strict=True))


def dealt(inside: np.ndarray, patients: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Deal a slice, bool (N,), to patients (N,) at random, bool (draws, N): as if it had nothing to do with them.

    Where patients are in the slice whole (sex), they change places whole. Where images of one patient are in it and
    others are not (eye), patients with as many images change places, and their images among each other.
    """
    random = np.random.default_rng(seed)
    _, member, images = np.unique(patients, return_inverse=True, return_counts=True)
    share = np.bincount(member, inside) / images
    order = random.random((draws, len(images))).argsort(axis=1)
    if np.isin(share, (0, 1)).all():
        return (share == 1)[order][:, member]
    places = np.lexsort((member, images[member]))  # patients with as many images stand beside each other
    rank = images[member] * len(images) + order.argsort(axis=1)[:, member]
    found = np.empty((draws, len(member)), bool)
    np.put_along_axis(found, np.argsort(rank + random.random(rank.shape), axis=1), inside[places][None], axis=1)
    return found


def patients_needed(gap: float, error: float, patients: int) -> float:
    """Return how many patients tell a gap with 80 % power, at 5 % error, two-sided; NaN for no gap.

    The standard error falls with the root of the number of patients, so that it takes n * ((z_0.975 + z_0.8) * error
    / gap)^2 of the same mix (Chow, Shao & Wang, Sample Size Calculations in Clinical Research, 2008, section 3.1, with
    the standard error by the bootstrap). Ask for the gap that would matter: the one that was found is itself uncertain.

    Args:
        gap: between a slice and the rest, in units of the metric.
        error: the standard error of the gap, of a study of ``patients``.
        patients: in that study, slice and rest together.
    """
    wanted = norm.ppf(0.975) + norm.ppf(0.8)
    return float(math.ceil(patients * (wanted * error / gap) ** 2)) if gap else math.nan


def banded(values: pd.Series) -> pd.Series:
    """Return the slice of each image, a categorical: what is missing is ``unknown``, words stand as they are.

    Ages are in bands of 20 years, other numbers of more than six values in thirds.
    """
    words = values.astype(object).where(values.notna()).map(str, na_action="ignore").astype("category")
    if _is_number(values) and values.nunique() > 6:
        numbers = values.astype(float)
        inner = AGES[1:-1] if values.name == "age" else np.unique(numbers.quantile([1 / 3, 2 / 3]))
        names = [f"below {inner[0]:.3g}", *(f"{a:.3g} to {b:.3g}" for a, b in itertools.pairwise(inner))]
        edges, names = [-math.inf, *inner, math.inf], [*names, f"from {inner[-1]:.3g}"]
        words = pd.cut(numbers, edges, labels=names, right=False).cat.remove_unused_categories()
    return words.cat.add_categories("unknown").fillna("unknown") if words.isna().any() else words


def in_words(table: pd.DataFrame) -> str:
    """Return what a table of slices says: how many were judged, which differ from the rest, what it takes to know."""
    judged = table.dropna(subset="p_holm").sort_values(["p_holm", "p"], kind="stable")
    if judged.empty:
        return f"{len(table)} slices, none with enough patients to be judged"
    differ, said = (
        judged[judged["p_holm"] < 0.05],
        [f"{len(judged)} slices judged, {len(table) - len(judged)} too small"],
    )
    for row in (judged.head(1) if differ.empty else differ).itertuples():
        verdict = f"p {row.p_holm:.3f} after Holm's correction"
        if differ.empty:
            verdict = "no more than chance"
            verdict += f"; about {row.needed:,.0f} patients would tell such a gap" if row.needed > 0 else ""
        value = f"{row.metric.replace('_', ' ')} {row.value:.3f}, {row.gap:+.3f} to the rest"
        said.append(f"  {row.column} {row.slice}: {value}, {verdict}")
    return "\n".join(said)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
