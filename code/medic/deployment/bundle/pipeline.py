"""From a finished run to a bundle in one call: export, compress if the gate lets it, package."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.data.explore import some_patients
from medic.data.parallel import each
from medic.data.records import targets
from medic.data.split import patients_known
from medic.deployment.bundle import About, Bundle, package
from medic.deployment.compress import Compressed, Examples, compress
from medic.deployment.counts import measure
from medic.deployment.drift import Reference
from medic.deployment.export import export
from medic.task import Task

if TYPE_CHECKING:
    import pandas as pd

    from medic.data.prepare import Prepared
    from medic.modeling.evaluate import Evaluation
    from medic.modeling.training.run import Run

CALIBRATION_IMAGES, REFERENCE_IMAGES, GOLDEN_IMAGES = 256, 600, 5


def package_run(
    run: "Run", evaluation: "Evaluation", folder: str | Path, int8: bool = False, drawn: "Prepared | None" = None
) -> tuple[Bundle, Compressed | None]:
    """Make a bundle of a run's best model.

    Args:
        run: a finished run whose prepared set and originals are there.
        evaluation: of that model on held-out images; its figures go on the model card.
        folder: where the bundle goes; its archive beside it.
        int8: compress, and take the int8 graph if it passes its gate on the validation images, and on ``drawn``.
        drawn: more images for the gate, where the validation split is too small for it.

    Returns:
        The bundle, and what compression came to (None when it was not asked for).

    Raises:
        MedicError: any step's own errors; nothing half-made is left.
    """
    model, prepared, compressed = run.model(), run.prepared, None
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "fp32.onnx"
        export(model, graph, pixels_of(prepared, "validation", 4))
        if int8:
            judged = examples(prepared, model.task)
            if drawn is not None:
                more = examples(drawn, model.task, None)
                patients = np.concatenate([judged.patients, [f"drawn {name}" for name in more.patients]])
                images, labels = np.r_[judged.images, more.images], np.r_[judged.labels, more.labels]
                judged = Examples(images, labels, patients, len(more.labels))
            training = pixels_of(prepared, "train", CALIBRATION_IMAGES)
            int8_graph = Path(scratch) / "int8.onnx"
            compressed = compress(graph, int8_graph, training, judged, model.task)
            graph = compressed.path
        return package(graph, folder, golden(prepared), about(run, evaluation)), compressed


def pixels_of(prepared: "Prepared", split: str, count: int | None = None) -> np.ndarray:
    """Return the first prepared images of a split, uint8 (N, size, size, 3) RGB; all of them when ``count`` is None."""
    return np.stack([prepared.pixels(file) for file in prepared.split(split)["file"].iloc[:count]])


def examples(prepared: "Prepared", task: Task, split: str | None = "validation") -> Examples:
    """Return labelled images on which a compressed model is judged, read from the originals, as a service reads them.

    The test split stays for the final evaluation; None takes every split, of a set that is for judging alone.
    """
    rows = prepared.records if split is None else prepared.split(split)
    pixels = each(lambda name: prepared.preprocessing.pixels(prepared.store.read(name)), rows["image"], title="reading")
    return Examples(np.stack(list(pixels)), targets(rows, task), rows["patient"].to_numpy())


def golden(prepared: "Prepared") -> list[tuple[str, bytes]]:
    """Return the first test images of each label, as (name, file bytes): what a bundle proves itself with."""
    rows = prepared.split("test")
    of_each = -(-GOLDEN_IMAGES // rows["label"].nunique())
    rows = rows.groupby("label").head(of_each).sort_values("label", kind="stable").head(GOLDEN_IMAGES)
    return [(name, prepared.store.read(name)) for name in rows["image"]]


def about(run: "Run", evaluation: "Evaluation") -> About:
    """Return what the manifest and the card say of data and figures, with the reference for ``medic drift``.

    The reference is fitted to about 600 of the evaluation's originals, as a service reads them.
    """
    chosen = some_patients(evaluation.records, REFERENCE_IMAGES)["patient"]
    chosen = evaluation.records["patient"].isin(chosen).to_numpy()
    rows, prediction, prepared = evaluation.records[chosen], evaluation.prediction.rows(chosen), run.prepared

    def looks(row: int) -> dict[str, np.ndarray]:
        data = prepared.store.read(rows["image"].iloc[row])
        return measure([data], prepared.preprocessing.pixels(data)[None], prediction.rows(np.array([row])))

    measured = list(each(looks, range(len(rows)), title="reading"))
    joined = {name: np.concatenate([one[name] for one in measured]) for name in measured[0]}
    truth = targets(rows, evaluation.task)
    reference = Reference.fit(joined, prediction, truth, rows["patient"], rows["split"].iloc[0])
    data = partition(run.records, evaluation.synthetic)
    return About(data, evaluation.synthetic, evaluation.to_dict(), reference)


def partition(records: "pd.DataFrame", synthetic: bool) -> str:
    """Say in one sentence how many images each split has, and whether patients are kept apart."""
    counts = records["split"].value_counts()
    kept = "no patient is in two splits" if patients_known(records) else "no patient is known: each image counts as one"
    return (
        f"{counts.get('train', 0)} {'synthetic images, drawn by a program' if synthetic else 'images'}, for training, "
        f"{counts.get('validation', 0)} for validation and {counts.get('test', 0)} for testing; {kept}."
    )
