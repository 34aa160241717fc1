"""The ResNet-18 that inference.py and serving.py measure: trained here, kept under outputs/benchmarks."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from measure import ROOT, origin

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.split import split_by_patient
from medic.deployment.bundle import About, Bundle, package
from medic.deployment.bundle.pipeline import calibration, golden, pixels_of
from medic.deployment.compress import quantize
from medic.deployment.export import export
from medic.files import write_text
from medic.task import RETINOPATHY

SIZE = 224
"""Side of the prepared photographs and of the network's input: nothing is resized inside the graph."""
EPOCHS = 8
QUICK_EPOCHS = 1


@dataclass(frozen=True)
class Network:
    """One trained network in the forms that are measured.

    Attributes:
        checkpoint: folder of the torch model.
        fp32: the bundle as it was exported.
        int8: the bundle as it was compressed, whether or not the gate would keep it.
        prepared: the photographs it was trained on.
        note: what it is, for the table.
    """

    checkpoint: Path
    fp32: Bundle
    int8: Bundle
    prepared: Prepared
    note: str


def network(options: argparse.Namespace) -> Network:
    """Train the network, export and compress it. What an earlier run made with the same library is taken as it is.

    Args:
        options: of the command line: ``data`` and ``quick``.
    """
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    source = os.path.relpath(options.data.resolve(), ROOT).replace(os.sep, "-").strip(".-")
    folder = ROOT / "outputs" / "benchmarks" / f"resnet18-{source}-{epochs}"
    note = f"network: ResNet-18 at {SIZE} px, trained from scratch for {epochs} epochs on {origin(options.data)[6:]}"
    made, key = folder / "made_with.txt", _library()
    if not made.is_file() or made.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, options, epochs)
        write_text(made, key)
    bundles = (Bundle.load(folder / name) for name in ("fp32", "int8"))
    return Network(folder / "run" / "best", *bundles, Prepared.load(folder / "prepared"), note)


def _make(folder: Path, options: argparse.Namespace, epochs: int) -> None:
    # Here, because every process of a benchmark imports this file, and only this function needs seconds of imports.
    import torch

    from medic.modeling.classifier import Classifier
    from medic.modeling.training.fit import Recipe, fit

    records, store = retinopathy.read(options.data / "retinopathy")
    split = split_by_patient(records, validation=0.25)
    prepared = prepare(split, store, folder / "prepared", Preprocessing(size=SIZE))
    torch.manual_seed(0)
    model = Classifier(RETINOPATHY, "resnet18", preprocessing=prepared.preprocessing, image_size=SIZE)
    run = fit(model, prepared, folder / "run", Recipe(epochs=epochs, batch_size=16))
    about = About(origin(options.data), prepared.synthetic)
    with tempfile.TemporaryDirectory() as scratch:
        graph, small = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        export(run.model(), graph, pixels_of(prepared, "validation", 4))
        quantize(graph, small, calibration(prepared))
        for name, path in (("fp32", graph), ("int8", small)):
            package(run.model(), folder / name, path, golden(prepared), about, archive=False)


def _library() -> str:
    """What made a network: another library, and it is made anew."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "code" / "medic").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def held_out(prepared: Prepared) -> np.ndarray:
    """Prepared photographs that neither training nor calibration saw, uint8 (N, size, size, 3)."""
    return np.concatenate([pixels_of(prepared, split) for split in ("validation", "test")])


def jpegs(prepared: Prepared, count: int, size: int) -> list[bytes]:
    """Photographs as JPEGs of about ``size`` bytes each: encoded anew, at the best quality that stays below it."""
    names = prepared.split("test")["image"].iloc[:count]
    return [_shrink(prepared.store.read(name), size) for name in names]


def _shrink(data: bytes, size: int) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for quality in range(98, 4, -2):
        made = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(made) <= size:
            break
    return made
