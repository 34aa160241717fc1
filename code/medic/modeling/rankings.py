"""What a ranking owes to the groups that images are of, such as the view."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medic.errors import MedicError
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import auroc
from medic.task import FINDINGS


def auroc_within(
    truth: np.ndarray, scores: np.ndarray, groups: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """Area under the ROC curve over those pairs of images alone that are of the same group.

    The probability that an image with the label scores above one without it, both of one group: what is left of a
    ranking where knowing the group is worth nothing. It is the groups' areas, weighted by their pairs (the covariate
    adjusted area of Janes & Pepe, Biometrika 96(2), 2009, p. 371, with pairs for weights).

    Args:
        truth: int (N,), 1 where the label is present.
        scores: float (N,).
        groups: (N,); an image whose group is missing is in no pair.
        counts: (D, N), how often each image counts in each of D samples; once, in one sample, when None.

    Returns:
        float64 (D,) in 0..1; NaN for a sample in which no group has both kinds of images.
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    counts = np.ones((1, len(truth))) if counts is None else np.asarray(counts, float)
    won, pairs = np.zeros(len(counts)), np.zeros(len(counts))
    for _, same in _members(groups).items():
        drawn = counts[:, same]
        number = (drawn @ truth[same]) * (drawn @ (1 - truth[same]))
        won += np.nan_to_num(auroc(truth[same], scores[same], drawn)) * number
        pairs += number
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def by_group(evaluation: Evaluation, taught: pd.DataFrame, column: str) -> pd.DataFrame:
    """What knowing a group alone would be worth for each label of a multilabel task, and what is left within groups.

    A group is a confounder where it goes along with the label and shows in the image: the view, the hospital, the
    device (Zech et al., PLOS Medicine 15(11), 2018, e1002683).

    Args:
        evaluation: of the model; its records have the column.
        taught: the training rows, by which the group's own score is set: the share of them, of the same group, that
            has the label; the share of all for a group that is missing or new.
        column: which grouping, such as ``view``.

    Returns:
        One row a label. First the share of each group's training images that has it (``share, AP``). Then areas under
        the ROC curve: that of ``<column> alone``, and those of the ``model`` over all images, over each group's
        (``model, AP``) and over pairs of one group (``model, same view``); NaN where there are no images with the label
        or none without it.

    Raises:
        MedicError: a table lacks the column.
    """
    tested, names = evaluation.records, list(evaluation.task.classes)
    for rows in (tested, taught):
        if column not in rows:
            raise MedicError(f"the records have no column {column!r} to group by, only {', '.join(rows)}")
    shares = taught.groupby(column)[names].mean()
    alone = shares.reindex(tested[column]).fillna(taught[names].mean())
    groups = _members(tested[column])
    table = {}
    for code, name in enumerate(names):
        truth, scores = evaluation.truth[:, code], evaluation.prediction.probabilities[:, code]
        row = {f"share, {group}": share for group, share in shares[name].items()}
        row |= {f"{column} alone": auroc(truth, alone[name].to_numpy())[0], "model": auroc(truth, scores)[0]}
        row |= {f"model, {group}": auroc(truth[same], scores[same])[0] for group, same in groups.items()}
        table[name] = row | {f"model, same {column}": auroc_within(truth, scores, tested[column])[0]}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("class")


def _members(groups: np.ndarray | pd.Series) -> dict[str, np.ndarray]:
    """Which images are in each group, by its name: bool (N,) each. Missing groups have none."""
    groups = pd.Series(np.asarray(groups, dtype=object))
    return {str(name): (groups == name).to_numpy() for name in sorted(groups.dropna().unique())}


_WANG = (0.716, 0.807, 0.784, 0.609, 0.706, 0.671, 0.633, 0.806, 0.708, 0.835, 0.815, 0.769, 0.708, 0.767)
_CHEXNET = (
    0.8094, 0.9248, 0.8638, 0.7345, 0.8676, 0.7802, 0.7680, 0.8887, 0.7901, 0.8878, 0.9371, 0.8047, 0.8062, 0.9164,
)  # fmt: skip


def published_auroc() -> pd.DataFrame:
    """Area under the ROC curve by finding, as printed in table 2 of Rajpurkar et al., arXiv 1711.05225.

    The column of Wang et al. (arXiv 1705.02315) is the one that table quotes. Both papers split by patient, each in its
    own way, and neither states intervals; their training sets have tens of thousands of images.

    Returns:
        Columns ``Wang et al. 2017`` and ``CheXNet 2017``, 0..1, one row a finding.
    """
    columns = {"Wang et al. 2017": _WANG, "CheXNet 2017": _CHEXNET}
    return pd.DataFrame(columns, index=pd.Index(FINDINGS, name="class"))
