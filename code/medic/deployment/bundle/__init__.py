"""The artifact: a folder (or its .tar.gz) that holds a model, what it says of itself, and the proof that it works."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import importlib.metadata
import json
import os
import platform
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np

import medic
from medic.data.images.decode import decode, read_header
from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle.manifest import (
    FORMAT,
    MANIFEST,
    VERSION,
    Manifest,
    list_files,
    read_manifest,
    verify_files,
)
from medic.deployment.bundle.model_card import model_card
from medic.deployment.bundle.predictor import ACTIVATION, INPUT, OUTPUTS, Predictor, open_session, run
from medic.deployment.drift import REFERENCE, Reference
from medic.errors import MedicError
from medic.files import replacing, sha256, write_bytes, write_json, write_text
from medic.task import Prediction, Task

if TYPE_CHECKING:
    from medic.modeling.classifier import Classifier

RUNTIME = (
    "errors.py",
    "files.py",
    "referral.py",
    "task.py",
    "data/images/decode.py",
    "data/images/dicom.py",
    "data/images/crop.py",
    "data/images/preprocess.py",
    "deployment/bundle/heatmap.py",
    "deployment/bundle/manifest.py",
    "deployment/bundle/predictor.py",
)
"""The part of this library that a bundle carries, so that it runs without the library."""

TOLERANCE = {"fp32": 1e-4, "int8": 0.02}
"""How far an answer for a golden image may lie from the expected one. Integer kernels round differently on processors
without dot-product instructions; on the machine that made the bundle they repeat themselves exactly."""

MAX_UNPACKED = 4 << 30
"""Bytes that an archive may unpack to."""


@dataclass(frozen=True)
class About:
    """What a bundle says of its model beside the graph.

    Attributes:
        data: a sentence or two: which images it was trained on, where they are from.
        synthetic: whether those images are synthetic; said on the card, in every answer and on the service's page.
        evaluation: figures of the model on held-out images, as plain values; shown on the card as they are. A list of
            mappings becomes a table, such as ``{"split": "test", "metrics": [{"metric": ..., "value": ..., "low": ...,
            "high": ..., "baseline": ...}]}``.
        reference: what held-out images look like, for ``medic drift``; None where a service is not to be watched.
    """

    data: str
    synthetic: bool
    evaluation: dict | None = None
    reference: Reference | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle on disk.

    Attributes:
        folder: where its files lie.
        manifest: what it says of itself.
        archive: its ``.tar.gz``, if there is one.
    """

    folder: Path
    manifest: Manifest
    archive: Path | None = None
    _unpacked: tempfile.TemporaryDirectory | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Open a bundle's folder or archive and verify every file.

        An archive is unpacked into a temporary folder that lasts as long as the returned object.

        Raises:
            MedicError: there is nothing, it is no bundle, it was changed or damaged, or a newer medic wrote it.
        """
        path = Path(path)
        if path.is_file():
            return cls._load_archive(path)
        if not path.exists():
            raise MedicError(f"there is no bundle at {path}; make one with medic package or correct the path")
        manifest = read_manifest(path)
        verify_files(path, manifest)
        archive = path.with_name(f"{path.name}.tar.gz")
        return cls(path, manifest, archive if archive.is_file() else None)

    @classmethod
    def _load_archive(cls, path: Path) -> Bundle:
        unpacked = tempfile.TemporaryDirectory(prefix="medic-bundle-")
        folder = _unpack(path, Path(unpacked.name))
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        return cls(folder, manifest, path, unpacked)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.manifest.task

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in (*self.manifest.files, MANIFEST))

    @property
    def reference(self) -> Reference | None:
        """What its service's images are compared with; None in a bundle that carries none."""
        path = self.folder / REFERENCE
        return Reference.from_dict(json.loads(path.read_text())) if path.is_file() else None

    def predictor(self, threads: int | None = None) -> Predictor:
        """Load the graph; ``threads`` bounds what one call may use."""
        return Predictor(self.folder, threads)

    def golden(self) -> tuple[list[str], list[bytes], Prediction]:
        """The golden images: names, bytes, and the prediction that is expected of them."""
        expected = json.loads((self.folder / "golden" / "expected.json").read_text())
        names = [entry["image"] for entry in expected]
        images = [(self.folder / "golden" / name).read_bytes() for name in names]
        probabilities = np.array([entry["probabilities"] for entry in expected], np.float32)
        grade = np.array([entry["grade"] for entry in expected], np.float32) if self.task.kind == "ordinal" else None
        thresholds = self.manifest.values["model"].get("thresholds")
        return names, images, Prediction(self.task, probabilities, grade, thresholds and tuple(thresholds))

    def verify(self) -> float:
        """Score the golden images and compare with what is expected.

        Returns:
            The largest difference found, in probability or in grades.

        Raises:
            MedicError: an answer lies further off than the manifest's tolerance.
        """
        names, images, expected = self.golden()
        differences = _differences(self.predictor().predict(images), expected)
        if not differences.max() <= self.manifest.tolerance:
            worst = names[int(differences.argmax())]
            raise MedicError(
                f"the bundle {self.folder} answers {worst} {differences.max():.1e} away from what is expected "
                f"(allowed: {self.manifest.tolerance:.0e}); the libraries here differ from those its manifest names: "
                "install those, or package the model again"
            )
        return float(differences.max())

    def __str__(self) -> str:
        return (
            f"bundle {self.manifest.version} at {self.folder}: {self.task.name}, {self.manifest.precision}, "
            f"{self.size / 1e6:.1f} MB, {self.manifest.calibration}. {self.manifest.notice}"
        )

    def _repr_html_(self) -> str:
        rows = {
            "version": self.manifest.version,
            "task": f"{self.task.name} ({self.task.kind}: {', '.join(self.task.classes)})",
            "model": f"{self.manifest.values['model']['backbone']}, {self.manifest.precision}",
            "folder": f"{self.folder} ({self.size / 1e6:.1f} MB, {len(self.manifest.files) + 1} files)",
            "archive": "" if self.archive is None else f"{self.archive} ({self.archive.stat().st_size / 1e6:.1f} MB)",
            "data": self.manifest.values["data"]["description"],
            "probabilities": self.manifest.calibration,
            "notice": self.manifest.notice,
        }
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
        return f"<table>{cells}</table>"


def package(
    model: Classifier | str | Path,
    folder: str | Path,
    onnx: str | Path,
    golden: Sequence[tuple[str, bytes]],
    about: About,
    *,
    archive: bool = True,
) -> Bundle:
    """Make a bundle, whole or not at all, and prove it on its golden images.

    For an fp32 graph the expected answers are those of the torch model, and the graph must agree with them; for an
    int8 graph they are its own, with the torch model's beside them.

    Args:
        model: the classifier the graph was exported from, or the folder of its checkpoint.
        folder: where to write; an older bundle there is replaced.
        onnx: the graph, as ``export`` or ``quantize`` wrote it.
        golden: a few images as (name, file bytes); their answers travel along. Their names are made plain.
        about: data and figures, for the manifest and the card.
        archive: whether ``folder``.tar.gz is written too; its bytes depend on the files alone.

    Returns:
        The bundle, loaded and verified.

    Raises:
        MedicError: no golden image, a graph that medic did not write or that disagrees with the model, or a folder
            that holds something else.
    """
    from medic.modeling.classifier import Classifier

    model = model if isinstance(model, Classifier) else Classifier.load(model)
    folder = Path(folder)
    if not golden:
        raise MedicError("a bundle needs golden images to prove itself with; give one or more as (name, bytes)")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file())):
        raise MedicError(f"{folder} exists and is no bundle; choose another folder or remove it")
    with whole_or_nothing(folder) as new:
        precision, has_map = _copy_graph(Path(onnx), new / "model.onnx")
        _write_golden(model, new, golden, precision)
        _copy_runtime(new)
        heatmap = {"method": "class activation map", "output": ACTIVATION} if has_map else None
        values = _values(model, folder.name, precision, about) | {"heatmap": heatmap}
        if about.reference is not None:
            write_json(new / REFERENCE, about.reference.to_dict())
        write_text(new / "MODEL_CARD.md", model_card(values, model.task))
        values["files"] = {name: sha256(new / name) for name in list_files(new)}
        write_json(new / MANIFEST, values)
        Bundle(new, read_manifest(new)).verify()
        packed = folder.with_name(f"{folder.name}.tar.gz")
        if archive:
            pack(new, packed)
        else:
            packed.unlink(missing_ok=True)
    return Bundle.load(folder)


def pack(folder: str | Path, archive: str | Path) -> Path:
    """Write a folder as ``.tar.gz``. The same files give the same bytes: sorted, without times, owners or caches."""
    folder, archive = Path(folder), Path(archive)
    with (
        replacing(archive) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in list_files(folder):
            entry = tarfile.TarInfo(f"{archive.name.removesuffix('.tar.gz')}/{name}")
            entry.size = (folder / name).stat().st_size
            with open(folder / name, "rb") as file:
                tar.addfile(entry, file)
    return archive


def _unpack(archive: Path, into: Path) -> Path:
    """Unpack a bundle's archive below ``into``; nothing may leave that folder."""
    wrong = f"{archive} is no bundle's archive"
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            if sum(member.size for member in members) > MAX_UNPACKED:
                raise MedicError(f"{wrong}: it unpacks to over {MAX_UNPACKED >> 30} GiB; get it again from its source")
            if other := [member.name for member in members if not (member.isfile() or member.isdir())]:
                raise MedicError(f"{wrong}: {other[0]} is a link or a device; get it again from its source")
            tar.extractall(into, members, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise MedicError(f"{wrong} or is damaged ({error}); get it again from its source") from error
    tops = list(into.iterdir())
    if len(tops) != 1 or not tops[0].is_dir():
        raise MedicError(
            f"{wrong}: it should hold one folder, it holds {len(tops)} entries; make one with medic package"
        )
    return tops[0]


@contextlib.contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block ends well, and vanishes otherwise."""
    new, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.{state}") for state in ("part", "old"))
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
    except OSError as error:
        raise MedicError(
            f"cannot write {folder}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error
    finally:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _copy_graph(onnx: Path, to: Path) -> tuple[str, bool]:
    """Copy the graph and return its precision, as its own metadata has it, and whether it gives a map for heatmaps."""
    session = open_session(onnx)
    precision = session.get_modelmeta().custom_metadata_map.get("medic.precision")
    if precision not in TOLERANCE:
        raise MedicError(f"{onnx} was not written by medic; make the graph with medic export")
    write_bytes(to, onnx.read_bytes())
    return precision, ACTIVATION in [output.name for output in session.get_outputs()]


def _copy_runtime(to: Path) -> None:
    source = Path(medic.__file__).parent
    for name in RUNTIME:
        write_bytes(to / "medic" / name, (source / name).read_bytes())
        # The packages' own __init__.py would import what does not travel.
        for folder in PurePosixPath(name).parents:
            write_bytes(to / "medic" / folder / "__init__.py", b"")
    write_bytes(to / "score.py", (source / "deployment" / "bundle" / "score.py").read_bytes())


def _write_golden(model: Classifier, folder: Path, golden: Sequence[tuple[str, bytes]], precision: str) -> None:
    # Plain and unlike each other, whatever the sources are called: a name must not say who the patient is.
    golden = [_without_patient(name, data) for name, data in golden]
    names = [f"{number:02d}{PurePosixPath(name).suffix.lower()}" for number, (name, _) in enumerate(golden, 1)]
    pixels = np.stack([model.preprocessing.pixels(data) for _, data in golden])
    checkpoint = model.predict_pixels(pixels)
    graph = run(open_session(folder / "model.onnx"), model.task, pixels)
    if precision == "fp32" and not (worst := _differences(graph, checkpoint).max()) <= TOLERANCE["fp32"]:
        raise MedicError(
            f"the graph and the model disagree by {worst:.1e} on the golden images; export this very model again"
        )
    # Rounding moves distances, and a compressed graph has a limit of its own.
    rules = [one.referral and replace(one.referral, distance=None) for one in (graph, checkpoint)]
    if graph.thresholds != checkpoint.thresholds or rules[0] != rules[1]:
        raise MedicError(
            f"the graph decides from {graph.thresholds} on, the model from {checkpoint.thresholds} on, or they leave "
            "other answers to a person; export this very model again"
        )
    expected = checkpoint if precision == "fp32" else graph
    entries = []
    for row, (name, (_, data)) in enumerate(zip(names, golden, strict=True)):
        write_bytes(folder / "golden" / name, data)
        entry = {"image": name, **_to_json(expected, row)}
        entries.append(entry if precision == "fp32" else {**entry, "checkpoint": _to_json(checkpoint, row)})
    write_json(folder / "golden" / "expected.json", entries)


def _without_patient(name: str, data: bytes) -> tuple[str, bytes]:
    """A DICOM file, which names its patient, as a PNG of the same pixels; any other image as it is."""
    if read_header(data).format != "DICOM":
        return name, data
    pixels = decode(data)
    grey = (pixels == pixels[:, :, :1]).all()
    png = cv2.imencode(".png", pixels[:, :, 0] if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
    return "golden.png", png.tobytes()


def _to_json(prediction: Prediction, row: int) -> dict:
    values: dict = {"probabilities": [float(value) for value in prediction.probabilities[row]]}
    return values if prediction.grade is None else {**values, "grade": float(prediction.grade[row])}


def _differences(one: Prediction, other: Prediction) -> np.ndarray:
    """The largest absolute difference for each image, in probability or in grades."""
    differences = np.abs(one.probabilities - other.probabilities).max(axis=1)
    if one.grade is None or other.grade is None:
        return differences
    return np.maximum(differences, np.abs(one.grade - other.grade))


def _values(model: Classifier, name: str, precision: str, about: About) -> dict:
    settings = model.to_dict()
    task, preprocessing = settings.pop("task"), settings.pop("preprocessing")
    size, classes = Preprocessing.from_dict(preprocessing).size, len(task["classes"])
    shapes = {name: [-1, classes] if name == OUTPUTS[0] else [-1] for name in model.output_names}
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "task": task,
        "preprocessing": preprocessing,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in shapes.items()],
        "precision": precision,
        "tolerance": TOLERANCE[precision],
        "model": {**settings, "weights": model.digest},
        "data": {"description": about.data, "synthetic": about.synthetic},
        "evaluation": about.evaluation,
        "created": {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            **{
                package: importlib.metadata.version(package)
                for package in (
                    "medic",
                    "torch",
                    "onnx",
                    "onnxruntime",
                    "numpy",
                    "opencv-python-headless",
                    "pillow",
                    "simplejpeg",
                )
            },
        },
    }
