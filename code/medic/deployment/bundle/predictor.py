"""Predictions from an exported graph with onnxruntime alone. This file travels inside every bundle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from medic.deployment.bundle.heatmap import Explanation, evidence_weights, heatmap
from medic.deployment.bundle.manifest import Manifest, read_manifest
from medic.errors import ImageError, MedicError
from medic.referral import Referral, appearance
from medic.task import Prediction, Task

INPUT = "images"
DISTANCE = "distance"
OUTPUTS = ("probabilities", "grade", DISTANCE)
"""Names in the graph and on the wire; ``grade`` is there for ordinal tasks only, ``distance`` (to the training images)
where the model measures it."""

ACTIVATION = "class_activation"
"""Name in the graph, after those, of the map that heatmaps are made from, where the network has one."""

PRECISION, MODEL, THRESHOLDS, REFERRAL = (f"medic.{name}" for name in ("precision", "model", "thresholds", "referral"))
"""Keys of a graph's metadata: ``fp32`` or ``int8``; the settings of the model it was exported from, with the digest of
its weights; its operating point, where one was chosen; and the rule by which answers are left to a person, where the
model is calibrated."""

BATCH = 4
"""Images that go through the graph together. More leave the processor's cache: with EfficientNet-Lite0 on two cores, 16
are 0.8 times as fast; with ResNet-18 as fast."""


class Predictor:
    """A bundle, loaded and verified, ready to answer. Safe to call from several threads.

    Args:
        folder: the bundle's folder.
        threads: threads that one call may use; None lets onnxruntime take every core.

    Raises:
        MedicError: no bundle, a file of it was changed, or onnxruntime cannot load its graph.
    """

    def __init__(self, folder: str | Path, threads: int | None = None):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.task, self.preprocessing = self.manifest.task, self.manifest.preprocessing
        self.session = open_session(self.folder / "model.onnx", threads)
        self.threads = threads

    def __reduce__(self) -> tuple:
        return Predictor, (self.folder.absolute(), self.threads)  # another process opens it under the same path

    def pixels(self, data: bytes) -> np.ndarray:
        """The graph's input for one image file: uint8 (size, size, 3) RGB.

        Raises:
            ImageError: the bytes cannot become pixels.
        """
        return self.preprocessing.pixels(data)

    def predict(self, images: Sequence[bytes]) -> Prediction:
        """Classify one or more whole image files.

        Raises:
            ImageError: one of several cannot become pixels; the message says which.
        """
        pixels = []
        for number, data in enumerate(images, 1):
            try:
                pixels.append(self.pixels(data))
            except ImageError as error:
                raise error if len(images) == 1 else ImageError(f"image {number}: {error}", error.reason) from error
        return self.predict_pixels(np.stack(pixels))

    def predict_pixels(self, pixels: np.ndarray) -> Prediction:
        """Classify prepared pixels, uint8 (N, size, size, 3) RGB, as ``pixels`` gives them."""
        return run(self.session, self.task, pixels)

    def explain(self, data: bytes) -> Explanation:
        """Classify one image file, and say which places argue for the answer.

        Args:
            data: the whole file.

        Returns:
            The prediction, the pixels that the network saw, and the heatmap, which is None where the network has no
            class activation map or an older medic exported it.

        Raises:
            ImageError: the bytes cannot become pixels.
        """
        pixels = self.pixels(data)
        outputs = outputs_of(self.session, pixels[None], (*OUTPUTS, ACTIVATION))
        activation = outputs.pop(ACTIVATION, None)
        prediction = _prediction(self.session, self.task, outputs, pixels[None])
        if activation is None:
            return Explanation(prediction, pixels, None, None)
        weights, of = evidence_weights(self.manifest.values["model"]["objective"], prediction)
        return Explanation(prediction, pixels, heatmap(activation[0], weights), of)

    def answers(self, prediction: Prediction) -> list[dict]:
        """Return a prediction as plain values for JSON, one mapping an image, with the notice that belongs to it."""
        return answers(self.manifest, prediction)


def http_status(error: MedicError) -> int:
    """Return the HTTP status that tells a client of an error: 413, 415 or 422 for an image, 400 for anything else."""
    return {"unsupported": 415, "too_large": 413}.get(error.reason, 422) if isinstance(error, ImageError) else 400


def answers(manifest: Manifest, prediction: Prediction) -> list[dict]:
    """Return a prediction as plain values for JSON, one mapping an image.

    Args:
        manifest: of the bundle that answered; its ``task``, ``version`` and ``notice`` are told.
        prediction: with or without a referral rule.
    """
    return [_answer(manifest, prediction, row) for row in range(len(prediction))]


def _answer(manifest: Manifest, prediction: Prediction, row: int) -> dict:
    task, thresholds = manifest.task, prediction.thresholds
    classes = np.array(task.classes)
    answer = {"task": task.name, "model": manifest.version}
    decided, said = prediction.decided[row], prediction.probabilities[row].tolist()
    if task.kind == "multilabel":
        answer["classes"] = classes[decided == 1].tolist()
    else:
        answer["label" if prediction.grade is None else "grade"] = int(decided)
        answer["class"] = task.classes[decided]
    if prediction.grade is not None:
        answer["grade_continuous"] = float(prediction.grade[row])
    elif thresholds is not None and task.kind == "multilabel":
        answer["thresholds"] = dict(zip(task.classes, thresholds, strict=True))
    elif thresholds is not None:
        answer["threshold"] = thresholds[0]
    answer["probabilities"] = dict(zip(task.classes, said, strict=True))
    if prediction.referral is not None:
        possible, why = classes[prediction.sets[row]].tolist(), str(prediction.why[row])
        answer |= {"set": possible, "refer": bool(why), "why": why, "calibration": str(prediction.referral)}
    return answer | {"notice": manifest.notice}


def open_session(path: str | Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load an exported graph on the CPU.

    Args:
        path: the ``.onnx`` file.
        threads: threads that one call may use; None takes every core.

    Raises:
        MedicError: the file is missing, or onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that spin between calls take the cores from whatever decodes the next image.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no other base
        if not Path(path).is_file():
            raise MedicError(f"there is no graph {path}; export the model first (medic export)") from error
        raise MedicError(f"onnxruntime cannot load {path} ({error}); export the model again") from error


def run(session: onnxruntime.InferenceSession, task: Task, pixels: np.ndarray) -> Prediction:
    """Put prepared pixels, uint8 (N, size, size, 3), through a graph, ``BATCH`` at a time."""
    return _prediction(session, task, outputs_of(session, pixels, OUTPUTS), pixels)


def outputs_of(
    session: onnxruntime.InferenceSession, pixels: np.ndarray, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return those of the wanted outputs that a graph has, for prepared pixels, ``BATCH`` images at a time.

    Raises:
        MedicError: the graph takes other pixels.
    """
    [given] = session.get_inputs()
    if pixels.dtype != np.uint8 or list(pixels.shape[1:]) != given.shape[1:] or not len(pixels):
        raise MedicError(
            f"the graph takes uint8 (N, {', '.join(map(str, given.shape[1:]))}) with one image or more, got "
            f"{pixels.dtype} {pixels.shape}; prepare image files with the model's own preprocessing"
        )
    names = [output.name for output in session.get_outputs() if output.name in wanted]
    parts = [
        session.run(names, {INPUT: np.ascontiguousarray(pixels[start : start + BATCH])})
        for start in range(0, len(pixels), BATCH)
    ]
    return dict(zip(names, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True))


def _prediction(
    session: onnxruntime.InferenceSession, task: Task, outputs: dict[str, np.ndarray], pixels: np.ndarray
) -> Prediction:
    thresholds, referral = said_of(session, THRESHOLDS), referral_of(session)
    if referral is not None:
        outputs["brightness"], outputs["sharpness"] = appearance(pixels)
    return Prediction(task, thresholds=thresholds and tuple(thresholds), referral=referral, **outputs)


def said_of(session: onnxruntime.InferenceSession, key: str) -> Any:
    """Return what a graph's metadata say under a key, which hold JSON but for ``PRECISION``; None where they do not."""
    stated = session.get_modelmeta().custom_metadata_map.get(key)
    return stated if stated is None or key == PRECISION else json.loads(stated)


def referral_of(session: onnxruntime.InferenceSession) -> Referral | None:
    """Return the rule by which answers are left to a person that a graph was exported with."""
    stated = said_of(session, REFERRAL)
    return stated and Referral.from_dict(stated)
