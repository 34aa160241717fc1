"""What is fitted after the training: calibration, operating point, prediction sets, and when a person is asked.

All of it rests on the validation images as a service reads them: their original bytes, through ``medic.predict``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor

from medic.data.prepare import Prepared
from medic.data.records import originals, targets
from medic.errors import MedicError
from medic.modeling.calibrate import calibration_errors, fit_scale_and_shift, fit_temperature
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import score
from medic.modeling.objectives import Hierarchical, MultiLabel
from medic.modeling.thresholds import set_thresholds, threshold_for
from medic.modeling.training.distance import FeatureDistance
from medic.modeling.training.recipe import Recipe
from medic.predict import predict
from medic.referral import Referral, appearance
from medic.task import Prediction, Task

FEWEST = 20
"""Validation patients below which nothing is calibrated: what is fitted on fewer would be chance."""
MOST = 256
"""Training images, evenly picked, from which the distance in feature space is learned."""
COVERAGE = 0.9
"""Share of the prediction sets that are to hold the truth."""
ODD, FAR = 0.01, 0.02
"""Shares of the validation images that lie beyond each limit of brightness and sharpness, and beyond that of the
distance."""


def decide(
    checkpoints: Sequence[Path], prepared: Prepared, task: Task, recipe: Recipe, features: np.ndarray | None = None
) -> None:
    """Fit on the validation split what makes a kept model's outputs an answer, and write it into its folder.

    With 20 validation patients or more: the calibration of the probabilities, the thresholds of prediction sets, the
    limits within which an image can be judged, and the distance in feature space to training images. With any number
    the operating point, where the recipe asks for one. Without it, decisions stay what they were before calibration.

    Args:
        checkpoints: folders of models of one preprocessing; of those with equal weights, the first is fitted.
        prepared: the prepared set. Where its original images are gone, its own are taken, which is said.
        task: what the models predict.
        recipe: names the wanted sensitivity.
        features: float32 (N, D), the last layer's input for training images, where it is known.
    """
    patients = originals(prepared.split("validation"))["patient"].nunique()
    if patients < FEWEST:
        print(f"{patients} validation patients are too few to calibrate on; {FEWEST} are needed")
        if recipe.sensitivity is None:
            return
    models = {path: Classifier.load(path, task) for path in checkpoints}
    fitted = {model.digest: path for path, model in reversed(models.items())}
    validation = _Validation([models[path] for path in fitted.values()], prepared)
    truth = targets(validation.rows, task)
    patients = validation.rows["patient"].nunique()
    for path, raw, inputs in zip(fitted.values(), validation.raw, validation.inputs, strict=True):
        model = models[path]
        if patients >= FEWEST:
            calibrate(model, raw, truth)
            print(
                f"the {path.name} model is calibrated on {patients} validation patients: {_change(model, raw, truth)}"
            )
        _choose_operating_point(model, raw, truth, recipe.sensitivity, path.name)
        if patients >= FEWEST:
            limits = validation.limits
            if inputs is not None:
                known = _training_features(model, prepared) if features is None else features
                model.distance = FeatureDistance.fit(known[_evenly(len(known))])
                limits = limits | {"distance": float(np.quantile(model.distance(inputs).numpy(), 1 - FAR))}
            possible = set_thresholds(truth, _decoded(model, raw), validation.rows["patient"].to_numpy(), COVERAGE)
            model.referral = Referral(patients, validation.split, possible, COVERAGE, **limits)
        model.save(path)
    for path, model in models.items():
        if path not in fitted.values():
            shutil.copytree(fitted[model.digest], path, dirs_exist_ok=True)


def calibrate(model: Classifier, raw: Tensor, truth: np.ndarray) -> None:
    """Set a model's ``scale`` and ``shift``, so that its probabilities state the least log loss on given images.

    - One class of several, and grades: one temperature for all raw outputs. It moves no decision of a softmax or of a
      regression, whose grade it leaves as it is; a CORN's answers are scaled before they are multiplied, which can move
      one. Class weights of the loss remain in the probabilities.
    - Two classes after a loss with class weights: one scale, and a shift of the second class, which takes them out.
    - Several findings: a scale each, and after a loss weighted by prevalence a shift each. In a tree of findings, a
      scale for each node, from the images that have its parent.

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
    elif isinstance(objective, Hierarchical):
        present, asked = (one.numpy().T for one in objective.questions(torch.from_numpy(truth)))
        pairs = [
            fit_scale_and_shift(of_node[having == 1], there[having == 1])
            for of_node, there, having in zip(outputs, present, asked, strict=True)
        ]
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
    answers = (answer.numpy() for answer in model.decode(raw))
    return Prediction(model.task, *answers, **{} if model.thresholds is None else {"thresholds": model.thresholds})


def _change(model: Classifier, raw: Tensor, truth: np.ndarray) -> str:
    """Return what the calibration is, and what it did to the calibration error."""
    own = Prediction(model.task, *(answer.numpy() for answer in model.objective.decode(raw, model.task)))
    before, after = (score(calibration_errors, truth, one) for one in (own, _decoded(model, raw)))
    scales = [f"{scale:.2f}" for scale in (min(model.scale), max(model.scale))]
    said = f"temperature {1 / model.scale[0]:.2f}" if len(set(model.scale)) == 1 else f"scales {' to '.join(scales)}"
    if any(model.shift):
        said += f", shifts {min(model.shift):.2f} to {max(model.shift):.2f}"
    return f"{said}; calibration error there {before:.3f}, now {after:.3f}"


def _choose_operating_point(
    model: Classifier, raw: Tensor, truth: np.ndarray, sensitivity: float | None, name: str
) -> None:
    model.thresholds, usual = None, None
    if any(model.shift or ()):
        # What a half has become: where nothing else is asked, decisions stay where the weighted loss has put them.
        half = model.decode(torch.zeros(1, raw.shape[1]))[0][0].tolist()
        usual = tuple(half[-model.task.thresholds :])
    if sensitivity is None:
        model.thresholds = usual
        return
    labels = model.task.thresholds
    asked = zip(truth.reshape(len(truth), -1).T, _decoded(model, raw).probabilities[:, -labels:].T, strict=True)
    model.thresholds = tuple(
        threshold_for(present, scores, sensitivity) if present.any() or labels == 1 else other
        for (present, scores), other in zip(asked, usual or [0.5] * labels, strict=True)
    )
    shown = ", ".join(f"{threshold:.3f}" for threshold in model.thresholds)
    print(f"operating point of the {name} model, sensitivity {sensitivity:g}: from {shown} on")
    absent = () if model.task.kind != "multilabel" else np.array(model.task.classes)[~truth.any(axis=0)]
    if len(absent):
        uncalibrated = " of the probability before calibration" if usual else ""
        print(f"no validation image has {', '.join(absent)}: decided at 0.5{uncalibrated}")


def _training_features(model: Classifier, prepared: Prepared) -> np.ndarray:
    """Return the last layer's input for some training images, float32 (N, D)."""
    files = originals(prepared.split("train"))["file"]
    found = []
    for some in np.array_split(files.to_numpy()[_evenly(len(files))], 16):
        if len(some):
            pixels = torch.from_numpy(np.stack([prepared.pixels(file) for file in some]))
            with torch.inference_mode():
                found.append(model.raw_and_features(model.inputs(pixels.to(model.mean.device)))[1].float().cpu())
    return torch.cat(found).numpy()


def _evenly(count: int) -> np.ndarray:
    """Return up to ``MOST`` places of a list, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))


class _Validation:
    """The validation images, and what some models of one preprocessing make of them.

    Attributes:
        rows: of the images that could be read.
        split: its name, which also says where the originals were gone.
        raw: of each model, its raw outputs float32 (N, K).
        inputs: of each model, its last layer's input float32 (N, D); None where that layer is no linear one.
        limits: within which brightness and sharpness of nearly all of them lie, as ``Referral`` has them.
    """

    def __init__(self, models: Sequence[Classifier], prepared: Prepared):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.models = [model.to(device) for model in models]
        self.task, self.preprocessing = models[0].task, models[0].preprocessing
        self._kept: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in models]
        self._looks: list[tuple[np.ndarray, np.ndarray]] = []
        rows, self.split = originals(prepared.split("validation")), "validation"
        try:
            store = prepared.store
        except MedicError as error:
            print(f"{error}; until then calibration and operating point rest on the prepared images")
            self.split = "validation (prepared images)"
            for files in np.array_split(rows["file"].to_numpy(), -(-len(rows) // 32)):
                self.predict_pixels(np.stack([prepared.pixels(file) for file in files]))
        else:
            rows = rows[rows["image"].isin(predict(self, store, list(rows["image"])).names)]
        self.rows = rows.reset_index(drop=True)
        self.raw = [torch.cat([raw for raw, _ in kept]) for kept in self._kept]
        self.inputs = [None if kept[0][1] is None else torch.cat([one for _, one in kept]) for kept in self._kept]
        brightness, sharpness = map(np.concatenate, zip(*self._looks, strict=True))
        self.limits = {
            "brightness": tuple(np.quantile(brightness, [ODD, 1 - ODD]).tolist()),
            "sharpness": float(np.quantile(sharpness, ODD)),
        }

    def predict_pixels(self, images: np.ndarray) -> Prediction:
        """Answer as the first model does, and keep what all make of the images; called in the images' order."""
        for model, kept in zip(self.models, self._kept, strict=True):
            with torch.inference_mode():
                pixels = torch.from_numpy(images).to(model.mean.device)
                raw, inputs = model.eval().raw_and_features(model.inputs(pixels))
            kept.append((raw.float().cpu(), None if inputs is None else inputs.float().cpu()))
        self._looks.append(appearance(images))
        return _decoded(self.models[0], self._kept[0][-1][0])
