"""From a finished run to a bundle in one call: export, compress if the gate lets it, package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.data.explore import some_patients
from medic.data.parallel import each
from medic.data.records import originals, targets
from medic.data.split import patients_known
from medic.deployment.bundle import About, Bundle, package
from medic.deployment.compress import Compressed, compress
from medic.deployment.compress.acceptance import Examples
from medic.deployment.counts import measure
from medic.deployment.drift import Reference
from medic.deployment.export import export
from medic.errors import ImageError
from medic.task import Prediction, Task

if TYPE_CHECKING:
    import pandas as pd

    from medic.data.prepare import Prepared
    from medic.modeling.evaluate import Evaluation
    from medic.modeling.training.run import Run
    from medic.predict import Model

CALIBRATION_IMAGES = 128
REFERENCE_IMAGES, BATCH = 600, 16
GOLDEN_IMAGES = 5


def package_run(
    run: Run, evaluation: Evaluation, folder: str | Path, int8: bool = False
) -> tuple[Bundle, Compressed | None]:
    """Make a bundle of a run's best model.

    Args:
        run: a finished run whose prepared set and originals are there.
        evaluation: of that model on held-out images; its figures go on the model card.
        folder: where the bundle goes; its archive beside it.
        int8: compress, and take the int8 graph if it passes its gate on the validation images.

    Returns:
        The bundle, and what compression came to (None when it was not asked for).

    Raises:
        MedicError: any step's own errors; nothing half-made is left.
    """
    model, prepared = run.model(), run.prepared
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "fp32.onnx"
        export(model, graph, pixels_of(prepared, "validation", 4))
        compressed = None
        if int8:
            compressed = compress(
                graph, Path(scratch) / "int8.onnx", calibration(prepared), examples(prepared, model.task), model.task
            )
            graph = compressed.path
        bundle = package(model, folder, graph, golden(prepared), about(run, evaluation))
    return bundle, compressed


def pixels_of(prepared: Prepared, split: str, count: int | None = None) -> np.ndarray:
    """The first prepared images of a split, uint8 (N, size, size, 3) RGB; all of them when ``count`` is None."""
    return np.stack([prepared.pixels(file) for file in prepared.split(split)["file"].iloc[:count]])


def calibration(prepared: Prepared) -> list[np.ndarray]:
    """Batches of training images from which quantisation reads its ranges, uint8 (N, size, size, 3) each."""
    pixels = pixels_of(prepared, "train", CALIBRATION_IMAGES)
    return [pixels[start : start + 16] for start in range(0, len(pixels), 16)]


def examples(prepared: Prepared, task: Task, split: str = "validation") -> Examples:
    """Labelled images on which a compressed model is judged, read from their original bytes, as a service reads them.

    The test split stays for the final evaluation.
    """
    rows = originals(prepared.split(split))
    pixels = [prepared.preprocessing.pixels(prepared.store.read(name)) for name in rows["image"]]
    return Examples(np.stack(pixels), targets(rows, task), rows["patient"].to_numpy())


def golden(prepared: Prepared) -> list[tuple[str, bytes]]:
    """The first test images of each label, as (name, file bytes): what a bundle proves itself with."""
    rows = prepared.split("test")
    of_each = -(-GOLDEN_IMAGES // rows["label"].nunique())
    rows = rows.groupby("label").head(of_each).sort_values("label", kind="stable").head(GOLDEN_IMAGES)
    return [(name, prepared.store.read(name)) for name in rows["image"]]


def about(run: Run, evaluation: Evaluation) -> About:
    """What the manifest and the card say of data and figures."""
    data = partition(run.records, evaluation.synthetic)
    return About(data, evaluation.synthetic, evaluation.to_dict(), reference(run.model(), run.prepared, evaluation))


def partition(records: pd.DataFrame, synthetic: bool) -> str:
    """Say in one sentence how many images each split has, and whether patients are kept apart."""
    counts = originals(records)["split"].value_counts()
    kept = "no patient is in two splits" if patients_known(records) else "no patient is known: each image counts as one"
    return (
        f"{counts.get('train', 0)} {'synthetic images, drawn by a program' if synthetic else 'images'}, for training, "
        f"{counts.get('validation', 0)} for validation and {counts.get('test', 0)} for testing; {kept}."
    )


def reference(model: Model, prepared: Prepared, evaluation: Evaluation) -> Reference:
    """Fit what a service's images are compared with: up to 600 of the evaluation's originals, as a service reads them.

    Args:
        model: a checkpoint or a bundle's predictor.
        prepared: the set, for its originals.
        evaluation: of the model, for names, labels and patients; images that cannot be read are left out.
    """
    rows = some_patients(evaluation.records, REFERENCE_IMAGES)

    def read(name: str) -> tuple[bytes, np.ndarray] | None:
        try:
            return (data := prepared.store.read(name)), model.preprocessing.pixels(data)
        except ImageError:
            return None

    kept, measures, predictions = [], [], []
    for start in range(0, len(rows), BATCH):
        names = rows["image"].iloc[start : start + BATCH]
        found = {
            place: one for place, one in zip(names.index, each(read, list(names), title="reading"), strict=True) if one
        }
        if found:
            images, pixels = zip(*found.values(), strict=True)
            predictions.append(model.predict_pixels(np.stack(pixels)))
            measures.append(measure(images, np.stack(pixels), predictions[-1]))
            kept += found
    rows = rows.loc[kept]
    joined = {name: np.concatenate([part[name] for part in measures]) for name in measures[0]}
    truth = targets(rows, model.task)
    return Reference.fit(joined, Prediction.joined(predictions), truth, rows["patient"], rows["split"].iloc[0])
