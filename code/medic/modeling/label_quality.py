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
    """Predict each image by a model that has seen neither it nor any other image of its patient.

    The patients are dealt into folds, stratified by class. For each fold a logistic regression is fitted on the
    features of all others, each feature scaled to mean 0 and variance 1 there. The features have to come from a network
    that has not been trained on these labels (ImageNet's weights, say): one that has knows the wrong ones by heart.

    Args:
        features: float (N, D), as ``medic.modeling.features`` or anything else gives them.
        records: the N images, in the same order.
        task: what is predicted.
        folds: at least 2; fewer are made where there are fewer patients, or fewer images of every class.
        cost: the inverse strength of the ridge penalty. 0.01 keeps a few hundred images with as many features from
            being learnt by heart; give more to tens of thousands.
        seed: of the folds.

    Returns:
        Probabilities in the order of the records. They are NaN for images of a class that a single patient has: no
        model can know it without that patient. With several labels that goes for the one class only. The grade of an
        ordinal task is the mean over the probabilities.

    Raises:
        MedicError: numbers of rows differ, a feature is not finite, or there are fewer than two patients.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    labels = targets(records, task)
    if features.ndim != 2 or len(features) != len(records):
        raise MedicError(
            f"the features have shape {features.shape} and the records {len(records)} rows; give one row an image, in "
            "the records' order"
        )
    if not np.isfinite(features).all():
        raise MedicError(f"{(~np.isfinite(features)).any(axis=1).sum()} rows of the features are not finite; mend them")
    patients = pd.factorize(records["patient"])[0]
    several = task.kind == "multilabel"
    # A class of a single patient cannot be learnt without that patient.
    alone = np.zeros((len(records), len(task.classes)), dtype=bool)
    for code in range(len(task.classes)):
        has = labels[:, code] == 1 if several else labels == code
        if len(set(patients[has])) == 1:
            alone[has, code if several else slice(None)] = True
    rows = np.flatnonzero(~alone.all(axis=1))
    most = len(rows) if several else np.bincount(labels[rows], minlength=1).max()
    folds = min(folds, len(set(patients[rows])), int(most))
    if folds < 2:
        raise MedicError("labels can be doubted with two patients or more, and two folds; give more images")
    questions = labels.T if several else [labels]
    splitter = (GroupKFold if several else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    probabilities = np.zeros((len(records), len(task.classes)), np.float32)
    with warnings.catch_warnings():
        # A class of fewer patients than folds is in some of them only, which does no harm.
        warnings.filterwarnings("ignore", message="The least populated class")
        dealt = list(splitter.split(features[rows], questions[0][rows], patients[rows]))
    for known, asked in ((rows[known], rows[asked]) for known, asked in dealt):
        for code, question in enumerate(questions):
            classes, values = _fitted(features[known], question[known], features[asked], cost, seed)
            if several:
                probabilities[asked, code] = values[:, list(classes).index(1)] if 1 in classes else 0
            else:
                probabilities[np.ix_(asked, classes)] = values
    probabilities[alone] = np.nan
    grade = (probabilities @ np.arange(len(task.classes), dtype=np.float32)) if task.kind == "ordinal" else None
    return Prediction(task, probabilities, grade)


def _fitted(
    features: np.ndarray, labels: np.ndarray, asked: np.ndarray, cost: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class codes, and their probabilities (asked, codes)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) == 1:
        return labels[:1], np.ones((len(asked), 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=cost, max_iter=1000, random_state=seed))
    model.fit(features, labels)
    return model[-1].classes_, model.predict_proba(asked)


def suspected_labels(records: pd.DataFrame, prediction: Prediction) -> pd.DataFrame:
    """Find the labels that are most likely wrong, by confident learning.

    Northcutt et al., Journal of Artificial Intelligence Research 70, 2021, p. 1373, as cleanlab has it: how often each
    class is taken for each other is reckoned from the predictions, and that many images are named, those first for
    which the model gives the label least. In a small set, or with a weak model, some wrong labels are not named. With
    several labels an image, each class is a question of its own. Grades are taken as classes, so a neighbouring grade
    counts as another; graders differ there, too.

    Args:
        records: the N images.
        prediction: of them, in the same order, from models that had not seen them (``out_of_fold``). Otherwise the
            model repeats the labels that it has learnt, wrong ones too.

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
        raise MedicError(
            f"there are {len(prediction)} predictions for {len(records)} records; give one a record, in their order"
        )
    labels = targets(records, task)
    given = written_labels(records, task)
    rows = []
    if task.kind == "multilabel":
        doubted = np.zeros(labels.shape, dtype=bool)
        confidence = np.where(labels == 1, probabilities, 1 - probabilities)
        for code, name in enumerate(task.classes):
            known = np.isfinite(probabilities[:, code])
            if name != NO_FINDING:  # it follows from the others
                two = np.stack([1 - probabilities[known, code], probabilities[known, code]], axis=1)
                doubted[known, code] = _doubted(labels[known, code], two)
        for at in np.flatnonzero(doubted.any(axis=1)):
            codes = np.flatnonzero(doubted[at])
            changed = np.where(doubted[at], 1 - labels[at], labels[at])
            names = [name for name, there in zip(task.classes, changed, strict=True) if there and name != NO_FINDING]
            said = "; ".join(
                f"{task.classes[code]} is {'' if labels[at, code] else 'not '}labelled, a model that has not seen the "
                f"patient gives it {probabilities[at, code]:.2f}"
                for code in codes
            )
            rows.append((at, said, "|".join(names) or NOTHING, confidence[at, codes].min()))
    else:
        known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
        for at in known[_doubted(labels[known], probabilities[known])]:
            likely, own = int(probabilities[at].argmax()), probabilities[at, labels[at]]
            said = (
                f"labelled {given[at]}, a model that has not seen the patient says {task.classes[likely]} "
                f"({probabilities[at, likely]:.2f} against {own:.2f})"
            )
            rows.append((at, said, task.classes[likely], own))
    images = records["image"].tolist()
    rows.sort(key=lambda row: (row[3], row[0]))
    found = [(images[at], "mislabelled", said, given[at], better, float(own)) for at, said, better, own in rows]
    return pd.DataFrame(found, columns=COLUMNS)


def _doubted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which labels confident learning finds wrong, bool (N,); none where all are one class."""
    from cleanlab.filter import find_label_issues

    codes = np.unique(labels)
    if len(codes) < 2:
        return np.zeros(len(labels), dtype=bool)
    # Classes that nobody has cannot be reckoned with; what they were given is shared among the others.
    shares = probabilities[:, codes] + 1e-9
    shares /= shares.sum(axis=1, keepdims=True)
    found = find_label_issues(np.searchsorted(codes, labels), shares, n_jobs=1)
    return found & (probabilities.argmax(axis=1) != labels)
