"""Which labels a model doubts that has not seen them: cross-validation by patient, and confident learning."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from medic.data.corrections import NOTHING, written_labels
from medic.data.records import targets
from medic.errors import MedicError
from medic.task import NO_FINDING, Prediction, Task

COLUMNS = ["image", "finding", "detail", "given", "suggested", "quality"]
"""Of the table of suspected labels."""


def out_of_fold(
    features: np.ndarray, records: pd.DataFrame, task: Task, *, folds: int = 5, cost: float = 0.01, seed: int = 0
) -> Prediction:
    """Predict each image by a logistic regression that has seen neither it nor any other image of its patient.

    Args:
        features: float (N, D), such as those of ``medic.modeling.features``, from a network that has not been trained
            on these labels: one that has knows the wrong ones by heart.
        records: the N images, in the same order.
        task: what is predicted.
        folds: at least 2, stratified by class; fewer are made where there are fewer patients.
        cost: the inverse strength of the ridge penalty, as scikit-learn's ``C``.
        seed: of the folds.

    Returns:
        Probabilities in the order of the records; NaN for images of a class that a single patient has (with several
        labels for that class alone). The grade of an ordinal task is the mean over the probabilities.

    Raises:
        MedicError: numbers of rows differ, a feature is not finite, or there are too few patients for two folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Numbered as they appear, so that the folds do not depend on what the patients are called.
    labels, patients, several = targets(records, task), pd.factorize(records["patient"])[0], task.kind == "multilabel"
    if features.ndim != 2 or len(features) != len(records) or not np.isfinite(features).all():
        raise MedicError(
            f"the features have shape {features.shape} and the records {len(records)} rows; give one row of finite "
            "numbers an image, in the records' order"
        )
    has = labels == 1 if several else labels[:, None] == np.arange(len(task.classes))
    alone = has & np.array([len(set(patients[column])) == 1 for column in has.T])
    rows = np.arange(len(records)) if several else np.flatnonzero(~alone.any(axis=1))
    most = len(rows) if several else has[rows].sum(axis=0).max()
    folds = min(folds, len(set(patients[rows])), int(most))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=cost, max_iter=1000, random_state=seed))
    known = np.arange(len(task.classes)) if several else np.unique(labels[rows])
    probabilities = np.zeros((len(records), len(task.classes)), np.float32)
    try:
        dealt = (GroupKFold if several else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that some folds have none of, which does no harm
            probabilities[np.ix_(rows, known)] = cross_val_predict(
                OneVsRestClassifier(model) if several else model,
                features[rows],
                labels[rows],
                groups=patients[rows],
                cv=dealt,
                method="predict_proba",
            )
    except ValueError as error:
        raise MedicError(f"labels cannot be doubted with so few patients ({error}); give more images") from error
    probabilities[alone if several else alone.any(axis=1)] = np.nan
    grade = (probabilities @ np.arange(len(task.classes), dtype=np.float32)) if task.kind == "ordinal" else None
    return Prediction(task, probabilities, grade)


def suspected_labels(records: pd.DataFrame, prediction: Prediction) -> pd.DataFrame:
    """Find the labels that are most likely wrong, by confident learning as cleanlab has it.

    Northcutt et al., Journal of Artificial Intelligence Research 70, 2021, p. 1373. With several labels an image, each
    class is a question of its own. Grades are taken as classes, so a neighbouring grade counts as another.

    Args:
        records: the N images.
        prediction: of them, in the same order, from models that had not seen them (``out_of_fold``).

    Returns:
        One row a suspected label, the most suspicious first, with the columns ``image``, ``finding`` (``mislabelled``),
        ``detail``, ``given`` and ``suggested`` (class names, as ``medic.data.corrections`` writes them) and ``quality``
        (probability that the model gives the label, 0..1; with several labels the least of those in doubt). It can be
        joined to the findings of ``medic.data.check.check``. Images without probabilities are left out.

    Raises:
        MedicError: the numbers of records and predictions differ.
    """
    task, probabilities = prediction.task, prediction.probabilities.astype(np.float64)
    if len(records) != len(prediction):
        raise MedicError(f"there are {len(prediction)} predictions for {len(records)} records; give one a record")
    labels, given, rows = targets(records, task), written_labels(records, task), []
    if task.kind == "multilabel":
        # Of the label for no finding nothing is asked: it follows from the others.
        asked = [code for code, name in enumerate(task.classes) if name != NO_FINDING]
        own = np.where(labels == 1, probabilities, 1 - probabilities)
        doubted = np.zeros(labels.shape, dtype=bool)
        for code in asked:
            of_class = np.stack([1 - probabilities[:, code], probabilities[:, code]], axis=1)
            doubted[:, code] = _doubted(labels[:, code], of_class)
        for at in np.flatnonzero(doubted.any(axis=1)):
            better = [task.classes[code] for code in asked if labels[at, code] != doubted[at, code]]
            said = "; ".join(
                f"{task.classes[code]} is {'' if labels[at, code] else 'not '}labelled, a model that has not seen the "
                f"patient gives it {probabilities[at, code]:.2f}"
                for code in np.flatnonzero(doubted[at])
            )
            rows.append((said, "|".join(better) or NOTHING, own[at, doubted[at]].min(), at))
    else:
        for at in np.flatnonzero(_doubted(labels, probabilities)):
            likely, own = int(probabilities[at].argmax()), probabilities[at, labels[at]]
            said = (
                f"labelled {given[at]}, a model that has not seen the patient says {task.classes[likely]} "
                f"({probabilities[at, likely]:.2f} against {own:.2f})"
            )
            rows.append((said, task.classes[likely], own, at))
    found = pd.DataFrame(rows, columns=["detail", "suggested", "quality", "at"]).astype({"quality": float, "at": int})
    found = found.assign(image=records["image"].to_numpy()[found["at"]], given=np.array(given, object)[found["at"]])
    return found.assign(finding="mislabelled").sort_values(["quality", "at"], ignore_index=True)[COLUMNS]


def _doubted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return which labels confident learning finds wrong, bool (N,); none where all are one class."""
    from cleanlab.filter import find_label_issues

    doubted, known = np.zeros(len(labels), dtype=bool), np.isfinite(probabilities).all(axis=1)
    codes = np.unique(labels[known])
    if len(codes) > 1:
        # cleanlab wants no classes without an image; what these were given is shared among the others.
        shares = probabilities[known][:, codes] + 1e-9
        shares /= shares.sum(axis=1, keepdims=True)
        doubted[known] = find_label_issues(np.searchsorted(codes, labels[known]), shares, n_jobs=1)
        doubted[known] &= probabilities[known].argmax(axis=1) != labels[known]
    return doubted
