"""Ensembles: the mean of what several models say of the same images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from medic.data.prepare import Prepared
from medic.data.records import originals
from medic.errors import MedicError
from medic.modeling.calibrate import brier_scores
from medic.modeling.compare import Lead, compare_evaluations
from medic.modeling.evaluate import Evaluation
from medic.modeling.metrics import Metric, interval, metric_named, resampled, score
from medic.predict import average
from medic.task import Prediction


def together(evaluations: Sequence[Evaluation], title: str) -> Evaluation:
    """The evaluation of the averaged predictions of models that were evaluated on the same images.

    Raises:
        MedicError: there is none, or the images differ.
    """
    prediction = average([one.prediction for one in evaluations])
    first = evaluations[0]
    if any(list(other.records["image"]) != list(first.records["image"]) for other in evaluations):
        raise MedicError("the evaluations are of different images; evaluate every model on the same split of one set")
    return replace(first, title=title, prediction=prediction)


def gain(members: Sequence[Evaluation], metric: str | Metric) -> Lead:
    """How far the average of models is ahead of the mean of their own figures, on the same patients.

    That mean is what one gets by picking a member blindly. The best member is known only afterwards, from the very
    images that judge.

    Args:
        members: evaluations of the same images.
        metric: one of ``metrics_for(task)``, or a function like those.

    Raises:
        MedicError: as ``together``.
    """
    chosen = metric_named(metric, together(members, "average").task)
    said = [average([one.prediction for one in members]), *(one.prediction for one in members)]
    truth, patients, seed = members[0].truth, members[0].records["patient"], members[0].seed
    values = [score(chosen, truth, one) for one in said]
    draws = [resampled(chosen, truth, one, patients, seed=seed) for one in said]
    ends = interval(draws[0] - np.mean(draws[1:], axis=0))
    return Lead(values[0] - float(np.mean(values[1:])), *ends)


def gains(members: Mapping[str, Sequence[Evaluation]], single: Evaluation, metric: str | Metric) -> pd.DataFrame:
    """Several ensembles, each beside its members and beside one network that was trained alone.

    Args:
        members: evaluations of the same images, by the ensemble's name.
        single: the network alone, on the same images.
        metric: one of ``metrics_for(task)``, or a function like those.

    Returns:
        One row an ensemble: ``members`` (tuple of their figures), ``mean_member``, ``average`` (the figure of the
        averaged probabilities), ``over_member`` and ``over_single``, each a ``Lead``.

    Raises:
        MedicError: as ``together``, or the single network was evaluated on other images.
    """
    chosen = metric_named(metric, single.task)
    compared = compare_evaluations({"single": single} | {name: together(each, name) for name, each in members.items()})
    rows = {}
    for name, each in members.items():
        own = tuple(score(chosen, one.truth, one.prediction) for one in each)
        rows[name] = {
            "members": own,
            "mean_member": float(np.mean(own)),
            "average": score(chosen, single.truth, compared.evaluations[name].prediction),
            "over_member": gain(each, metric),
            "over_single": compared.lead(name, "single", metric),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def disagreement(predictions: Sequence[Prediction]) -> float:
    """The variance of the members' probabilities about their average, mean over images and classes.

    It is what averaging takes off the squared error, to the last digit: the Brier score of the average is the mean
    Brier score of the members minus this (Krogh & Vedelsby, Neural network ensembles, cross validation, and active
    learning, NIPS 7, 1995, p. 231). Members that say the same gain nothing.

    Raises:
        MedicError: as ``average``.
    """
    centre = average(predictions).probabilities.astype(float)
    return float(np.mean([(one.probabilities - centre) ** 2 for one in predictions]))


def why(members: Mapping[str, Sequence[Evaluation]]) -> pd.DataFrame:
    """Where the gain of ensembles of a multilabel task comes from: how far their members disagree.

    Args:
        members: evaluations of the same images, by the ensemble's name; two or more each.

    Returns:
        One row an ensemble: ``brier_members`` (their mean Brier score), ``disagreement``, ``brier_average`` (the one
        minus the other) and ``correlation`` (of the errors of two members, mean over all pairs).
    """
    rows = {}
    for name, each in members.items():
        said = [one.prediction for one in each]
        errors = np.corrcoef([(one.prediction.probabilities - one.truth).ravel() for one in each])
        rows[name] = {
            "brier_members": np.mean([score(brier_scores, one.truth, one.prediction) for one in each]),
            "disagreement": disagreement(said),
            "brier_average": score(brier_scores, each[0].truth, average(said)),
            "correlation": errors[np.triu_indices(len(each), 1)].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def folds(prepared: Prepared, count: int, seed: int = 0) -> list[Prepared]:
    """The prepared set with its training and validation patients dealt anew, ``count`` times, for cross-validation.

    In the k-th set the k-th part of the patients validates and the others train, so that every patient validates once.
    The test split stays what it is. Dealt by scikit-learn's ``StratifiedGroupKFold`` over patients and ``label``.

    Args:
        prepared: the set; its files are used as they are.
        count: number of folds, two or more.
        seed: the same seed gives the same folds.

    Raises:
        MedicError: fewer than two folds, more than patients, or more than images of the most frequent label; or the
            set holds varied copies of images, which are not to be validated on.
    """
    records = prepared.records
    if len(originals(records)) < len(records):
        raise MedicError(
            f"the set {prepared.folder} holds varied copies of its training images, and folds would validate on them; "
            "deal the set that it was made from, and vary images while training"
        )
    dealt = np.flatnonzero(records["split"] != "test")
    rows = records.iloc[dealt]
    patients = rows["patient"].nunique()
    if not 2 <= count <= patients:
        raise MedicError(f"{patients} patients cannot be dealt into {count} folds; take 2 to {patients}")
    most = rows["label"].value_counts().max()
    if count > most:
        raise MedicError(f"no label has {count} images, one for each fold; take {most} folds or fewer")
    dealer = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    sets = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a rare grade is in some folds only
        for train, validation in dealer.split(rows, rows["label"], rows["patient"]):
            split = records["split"].to_numpy(object).copy()
            split[dealt[train]], split[dealt[validation]] = "train", "validation"
            sets.append(replace(prepared, records=records.assign(split=split)))
    return sets


def out_of_fold(parts: Sequence[Evaluation], title: str) -> Evaluation:
    """All patients outside the test split, each judged by the member of ``folds`` that was trained without them.

    Probabilities of several models are ranked together there, which takes a little off the areas. Each model's own
    operating point was chosen on the very images that it judges here, so that all are decided as ``average`` decides.

    Args:
        parts: of each fold's run its evaluation on ``validation``.
        title: what to call it.

    Raises:
        MedicError: there is none, or an image is in two of them.
    """
    if not parts:
        raise MedicError("there is nothing to put together; evaluate the run of each fold on 'validation'")
    records = pd.concat([part.records for part in parts], ignore_index=True)
    if records["image"].duplicated().any():
        twice = records.loc[records["image"].duplicated(), "image"].iloc[0]
        raise MedicError(f"the image {twice} is in two of the evaluations; give one of each fold, on 'validation'")
    prediction = Prediction.joined([part.prediction for part in parts])
    failed = pd.concat([part.failed for part in parts], ignore_index=True)
    undecided = replace(prediction, thresholds=None)
    return replace(parts[0], title=title, prediction=undecided, records=records, failed=failed)
