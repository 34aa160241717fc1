"""Predictions from an exported graph with onnxruntime alone. This file travels inside every bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle.heatmap import Explanation, evidence_weights, heatmap
from medic.deployment.bundle.manifest import Manifest, read_manifest, verify_files
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

PRECISION, THRESHOLDS, REFERRAL = "medic.precision", "medic.thresholds", "medic.referral"
"""Keys of a graph's metadata: ``fp32`` or ``int8``; the model's operating point, where one was chosen; and the rule by
which answers are left to a person, where the model is calibrated."""

BATCH = 16
"""Images that go through the graph together: enough to be fast, few enough for a small machine."""


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
        self.manifest: Manifest = read_manifest(self.folder)
        verify_files(self.folder, self.manifest)
        self.session = open_session(self.folder / "model.onnx", threads)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.manifest.task

    @property
    def preprocessing(self) -> Preprocessing:
        """How the bytes of an image become the graph's input."""
        return self.manifest.preprocessing

    def pixels(self, data: bytes) -> np.ndarray:
        """The graph's input for one image file: uint8 (size, size, 3) RGB.

        Raises:
            ImageError: the bytes cannot become pixels.
        """
        return self.preprocessing.pixels(data)

    def predict(self, images: Sequence[bytes]) -> Prediction:
        """Classify whole image files.

        Raises:
            ImageError: one of them cannot become pixels; the message says which.
            MedicError: there is no image.
        """
        if not images:
            raise MedicError("there is no image to classify; give one or more")
        if len(images) == 1:
            return self.predict_pixels(self.pixels(images[0])[None])
        return self.predict_pixels(np.stack([self._numbered(number, data) for number, data in enumerate(images, 1)]))

    def predict_pixels(self, pixels: np.ndarray) -> Prediction:
        """Classify prepared pixels, uint8 (N, size, size, 3) RGB, as ``pixels`` gives them."""
        size = self.preprocessing.size
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or not len(pixels):
            raise MedicError(
                f"the graph takes uint8 (N, {size}, {size}, 3) with one image or more, got {pixels.dtype} "
                f"{pixels.shape}; prepare image files with pixels()"
            )
        return run(self.session, self.task, pixels)

    def explain(self, data: bytes, of: str | None = None) -> Explanation:
        """Classify one image file, and say which places argue for the answer.

        Args:
            data: the whole file.
            of: the class whose evidence is wanted; None chooses (see ``heatmap.evidence_weights``).

        Returns:
            The prediction, the pixels that the network saw, and the heatmap, which is None where the network has no
            class activation map or an older medic exported it.

        Raises:
            ImageError: the bytes cannot become pixels.
            MedicError: the model has no evidence for ``of`` alone.
        """
        pixels = self.pixels(data)
        prediction, activation = run_with_activation(self.session, self.task, pixels[None])
        weights, of = evidence_weights(self.manifest.values["model"]["objective"], prediction, of)
        if activation is None:
            return Explanation(prediction, pixels, None, None)
        return Explanation(prediction, pixels, heatmap(activation[0], weights), of)

    def answers(self, prediction: Prediction) -> list[dict]:
        """See ``answers``."""
        return answers(self.manifest, prediction)

    def _numbered(self, number: int, data: bytes) -> np.ndarray:
        try:
            return self.pixels(data)
        except ImageError as error:
            raise ImageError(f"image {number}: {error}", error.reason) from error


def answers(manifest: Manifest, prediction: Prediction) -> list[dict]:
    """A prediction as plain values for JSON, one mapping an image, each with the notice that belongs to it."""
    classes = manifest.task.classes
    return [
        {
            "task": manifest.task.name,
            "model": manifest.version,
            **_decision(prediction, row),
            "probabilities": dict(zip(classes, map(float, prediction.probabilities[row]), strict=True)),
            **_referral(prediction, row),
            "notice": manifest.notice,
        }
        for row in range(len(prediction))
    ]


def _decision(prediction: Prediction, row: int) -> dict:
    classes = prediction.task.classes
    decided = prediction.decided[row]
    if prediction.task.kind == "multilabel":
        thresholds = prediction.thresholds
        operating_point = {} if thresholds is None else {"thresholds": dict(zip(classes, thresholds, strict=True))}
        return {"classes": [name for name, present in zip(classes, decided, strict=True) if present], **operating_point}
    if prediction.grade is None:
        operating_point = {} if prediction.thresholds is None else {"threshold": prediction.thresholds[0]}
        return {"label": int(decided), "class": classes[decided], **operating_point}
    return {
        "grade": int(decided),
        "class": classes[decided],
        "grade_continuous": float(prediction.grade[row]),
    }


def _referral(prediction: Prediction, row: int) -> dict:
    if prediction.referral is None:
        return {}
    possible = [name for name, there in zip(prediction.task.classes, prediction.sets[row], strict=True) if there]
    why = str(prediction.why[row])
    return {"set": possible, "refer": bool(why), "why": why, "calibration": str(prediction.referral)}


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
    return _prediction(session, task, _outputs(session, pixels, OUTPUTS), pixels)


def run_with_activation(
    session: onnxruntime.InferenceSession, task: Task, pixels: np.ndarray
) -> tuple[Prediction, np.ndarray | None]:
    """As ``run``, and the class activation map float32 (N, K, h, w) of K raw outputs, None where there is none."""
    outputs = _outputs(session, pixels, (*OUTPUTS, ACTIVATION))
    activation = outputs.pop(ACTIVATION, None)
    return _prediction(session, task, outputs, pixels), activation


def _outputs(
    session: onnxruntime.InferenceSession, pixels: np.ndarray, wanted: tuple[str, ...]
) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs() if output.name in wanted]
    parts = [
        session.run(names, {INPUT: np.ascontiguousarray(pixels[start : start + BATCH])})
        for start in range(0, len(pixels), BATCH)
    ]
    return dict(zip(names, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True))


def _prediction(
    session: onnxruntime.InferenceSession, task: Task, outputs: dict[str, np.ndarray], pixels: np.ndarray
) -> Prediction:
    referral = referral_of(session)
    if referral is not None:
        outputs["brightness"], outputs["sharpness"] = appearance(pixels)
    return Prediction(task, thresholds=thresholds_of(session), referral=referral, **outputs)


def thresholds_of(session: onnxruntime.InferenceSession) -> tuple[float, ...] | None:
    """The operating point that a graph was exported with, from its metadata."""
    stated = session.get_modelmeta().custom_metadata_map.get(THRESHOLDS)
    return None if stated is None else tuple(json.loads(stated))


def referral_of(session: onnxruntime.InferenceSession) -> Referral | None:
    """The rule by which answers are left to a person that a graph was exported with, from its metadata."""
    stated = session.get_modelmeta().custom_metadata_map.get(REFERRAL)
    return None if stated is None else Referral.from_dict(json.loads(stated))
