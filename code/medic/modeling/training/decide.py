"""What is fitted after the training: calibration, operating point, prediction sets, and when a person is asked.

All of it rests on the validation images as a service reads them: from their original bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import logit
from torch import Tensor

from medic.data.parallel import each
from medic.data.prepare import Prepared
from medic.data.records import targets
from medic.errors import MedicError
from medic.modeling.calibrate import calibration_errors, fit_scale_and_shift, fit_temperature
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import score
from medic.modeling.objectives import MultiLabel
from medic.modeling.thresholds import set_thresholds, threshold_for
from medic.modeling.training.distance import FeatureDistance
from medic.modeling.training.recipe import Recipe
from medic.predict import nothing_read, read_pixels
from medic.referral import Referral, appearance
from medic.task import Prediction, Task

FEWEST = 20
"""Validation patients below which nothing is calibrated: what is fitted on fewer would be chance."""
BATCH = 32
"""Validation images a step."""
MOST = 256
"""Training images, evenly picked, from which the distance in feature space is learned."""
COVERAGE = 0.9
"""Share of the prediction sets that are to hold the truth."""
ODD, FAR = 0.01, 0.02
"""Shares of the validation images that lie beyond each limit of brightness and sharpness, and beyond that of the
distance."""


def decide(folder: Path, prepared: Prepared, task: Task, recipe: Recipe, features: np.ndarray | None = None) -> None:
    """Fit on the validation split what makes a kept model's outputs an answer, and write it into its folder.

    With 20 validation patients or more: the calibration of the probabilities, the thresholds of prediction sets, the
    limits within which an image can be judged, and the distance in feature space to training images. With any number
    the operating point, where the recipe asks for one. Without it, decisions stay what they were before calibration.

    Args:
        folder: of the model.
        prepared: the prepared set. Where its original images are gone, its own are taken, which is said.
        task: what the model predicts.
        recipe: names the wanted sensitivity.
        features: float32 (N, D), the last layer's input for training images, where it is known.
    """
    rows = prepared.split("validation")
    if (patients := rows["patient"].nunique()) < FEWEST:
        print(f"{patients} validation patients are too few to calibrate on; {FEWEST} are needed")
        if recipe.sensitivity is None:
            return
    model = Classifier.load(folder, task).to("cuda" if torch.cuda.is_available() else "cpu")
    rows, split, raw, inputs, limits = _answers(model, prepared, rows)
    truth, patients = targets(rows, task), rows["patient"].nunique()
    if patients >= FEWEST:
        before = score(calibration_errors, truth, _decoded(model, raw))
        calibrate(model, raw, truth)
        after, least, most = score(calibration_errors, truth, _decoded(model, raw)), min(model.scale), max(model.scale)
        how = f"temperature {1 / least:.2f}" if least == most else f"scales {least:.2f} to {most:.2f}"
        how += f", shifts {min(model.shift):.2f} to {max(model.shift):.2f}" if any(model.shift) else ""
        print(
            f"the {folder.name} model is calibrated on {patients} validation patients: {how}; calibration error there "
            f"{before:.3f}, now {after:.3f}"
        )
    usual = None
    if any(model.shift or ()):
        # What a half has become: where nothing else is asked, decisions stay where the weighted loss has put them.
        usual = tuple(model.decode(torch.zeros(1, raw.shape[1]))[0][0].tolist()[-task.thresholds :])
    model.thresholds = usual
    if recipe.sensitivity is not None:
        labels = task.thresholds
        asked = zip(truth.reshape(len(truth), -1).T, _decoded(model, raw).probabilities[:, -labels:].T, strict=True)
        model.thresholds = tuple(
            threshold_for(present, scores, recipe.sensitivity) if present.any() or labels == 1 else other
            for (present, scores), other in zip(asked, usual or [0.5] * labels, strict=True)
        )
        shown = ", ".join(f"{threshold:.3f}" for threshold in model.thresholds)
        print(f"operating point of the {folder.name} model, sensitivity {recipe.sensitivity:g}: from {shown} on")
        absent = () if task.kind != "multilabel" else np.array(task.classes)[~truth.any(axis=0)]
        if len(absent):
            uncalibrated = " of the probability before calibration" if usual else ""
            print(f"no validation image has {', '.join(absent)}: decided at 0.5{uncalibrated}")
    if patients >= FEWEST:
        if inputs is not None:
            known = _training_features(model, prepared) if features is None else features
            model.distance = FeatureDistance.fit(known[_evenly(len(known))])
            limits["distance"] = float(np.quantile(model.distance(inputs).numpy(), 1 - FAR))
        possible = set_thresholds(truth, _decoded(model, raw), rows["patient"].to_numpy(), COVERAGE)
        model.referral = Referral(patients, split, possible, COVERAGE, **limits)
    model.save(folder)


def calibrate(model: Classifier, raw: Tensor, truth: np.ndarray) -> None:
    """Set a model's ``scale`` and ``shift``, so that its probabilities state the least log loss on given images.

    - One class of several, and grades: one temperature for all raw outputs. It moves no decision of a softmax or of a
      regression, whose grade it leaves as it is; a CORN's answers are scaled before they are multiplied, which can move
      one. Class weights of the loss remain in the probabilities.
    - Two classes after a loss with class weights: one scale, and a shift of the second class, which takes them out.
    - Several findings: a scale each, and after a loss weighted by prevalence a shift each.

    Args:
        model: its calibration, if it has one, is replaced; its ``thresholds`` stay as they are.
        raw: float32 (N, K), its raw outputs for images that it was not trained on.
        truth: int (N,) codes, for multilabel tasks (N, C) of 0 and 1.
    """
    objective, outputs = model.objective, raw.numpy().T
    weights = getattr(objective, "class_weights", None)
    if isinstance(objective, MultiLabel):
        usual = [None] * len(outputs)
        if objective.prevalence is not None:  # what undoes a loss that weighs both sides of a finding the same
            usual = [float(logit(share)) if 0 < share < 1 else 0.0 for share in objective.prevalence]
        pairs = [fit_scale_and_shift(*one) for one in zip(outputs, truth.T, usual, strict=True)]
    elif model.task.thresholds and weights is not None:
        usual = float(np.log(weights[0] / weights[1]))
        scale, shift = fit_scale_and_shift(outputs[1] - outputs[0], truth, usual)
        pairs = [(scale, 0.0), (scale, shift)]
    else:

        def of_truth(temperature: float) -> np.ndarray:
            probabilities = objective.decode(raw, model.task, 1 / temperature)[0].numpy()
            return probabilities[np.arange(len(truth)), truth]

        pairs = [(1 / fit_temperature(of_truth, len(model.task.classes)), 0.0)] * len(outputs)
    model.scale, model.shift = zip(*pairs, strict=True)


def _decoded(model: Classifier, raw: Tensor) -> Prediction:
    return Prediction(model.task, *(answer.numpy() for answer in model.decode(raw)), thresholds=model.thresholds)


def _training_features(model: Classifier, prepared: Prepared) -> np.ndarray:
    """Return the last layer's input for some training images, float32 (N, D)."""
    files = prepared.split("train")["file"].to_numpy()
    parts = np.array_split(files[_evenly(len(files))], 16)
    return torch.cat([_run(model, np.stack([*map(prepared.pixels, part)]))[1] for part in parts if len(part)]).numpy()


def _evenly(count: int) -> np.ndarray:
    """Return up to ``MOST`` places of a list, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))


@torch.inference_mode()
def _run(model: Classifier, images: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Return the raw outputs (N, K), and the last layer's input (N, D) where that is a linear one, of uint8 images."""
    raw, features = model.raw_and_features(model.inputs(torch.from_numpy(images).to(model.mean.device)))
    return raw.float().cpu(), None if features is None else features.float().cpu()


def _answers(
    model: Classifier, prepared: Prepared, rows: pd.DataFrame
) -> tuple[pd.DataFrame, str, Tensor, Tensor | None, dict]:
    """Run the validation images through a model.

    Returns:
        The rows of those that could be read; the split's name, which also says where the originals were gone; the raw
        outputs and the last layer's inputs, as ``_run`` has them; the limits within which brightness and sharpness of
        nearly all images lie, as ``Referral`` has them.
    """
    try:
        store, split = prepared.store, "validation"
    except MedicError as error:
        print(f"{error}; until then calibration and operating point rest on the prepared images")
        store, split = None, "validation (prepared images)"

    def read(part: pd.DataFrame) -> tuple[list[np.ndarray], pd.DataFrame, Sequence[str]]:
        if store is None:
            return [*map(prepared.pixels, part["file"])], part, ()
        pixels, names, failed = read_pixels(model.preprocessing, store, part["image"])
        return pixels, part[part["image"].isin(names)], failed["detail"]

    kept, why = [], []
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    for pixels, part, failed in each(read, batches, title="calibrating", unit="batch"):
        why += failed
        if pixels:
            images = np.stack(pixels)
            kept.append((part, *_run(model, images), *appearance(images)))
    if not kept:
        raise nothing_read(store, [*rows["image"]], *why)
    parts, raw, inputs, brightness, sharpness = zip(*kept, strict=True)
    limits = {
        "brightness": tuple(np.quantile(np.concatenate(brightness), [ODD, 1 - ODD]).tolist()),
        "sharpness": float(np.quantile(np.concatenate(sharpness), ODD)),
    }
    inputs = None if inputs[0] is None else torch.cat(inputs)
    return pd.concat(parts, ignore_index=True), split, torch.cat(raw), inputs, limits
