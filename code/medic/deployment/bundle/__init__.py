"""The artifact: a folder (or its .tar.gz) that holds a model, what it says of itself, and the proof that it works."""

import datetime
import gzip
import importlib.metadata
import io
import json
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import jinja2
import numpy as np

import medic
from medic.data.images.decode import decode, read_header
from medic.deployment.bundle import predictor as graphs
from medic.deployment.bundle.manifest import FORMAT, MANIFEST, VERSION, Manifest, list_files, read_manifest
from medic.deployment.bundle.predictor import ACTIVATION, OUTPUTS, Predictor, open_session, outputs_of, said_of
from medic.deployment.drift import REFERENCE, Reference
from medic.errors import MedicError
from medic.files import replacing, sha256, write_bytes, write_json, write_text
from medic.task import Prediction, Task

RUNTIME = "errors files referral task data/images/decode data/images/dicom data/images/crop data/images/preprocess "
RUNTIME += "deployment/bundle/heatmap deployment/bundle/manifest deployment/bundle/predictor"
"""The part of this library that a bundle carries, so that it runs without the library."""

PACKAGE = Path(medic.__file__).parent
MADE_WITH = ("medic", "torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
TOLERANCE = {"fp32": 1e-4, "int8": 0.02}
"""How far an answer for a golden image may lie from the expected one. The integers of an int8 graph are the same on any
processor, but the floats before them can round to another one."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
PIXELS = (*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD)
"""What begins a segment of a JPEG, and the segments without which it has no pixels."""


@dataclass(frozen=True)
class About:
    """What a bundle says of its model beside the graph.

    Attributes:
        data: a sentence or two: which images it was trained on, where they are from.
        synthetic: whether those images are synthetic; said on the card, in every answer and on the service's page.
        evaluation: figures of the model on held-out images, as ``medic.modeling.evaluate.Evaluation.to_dict`` gives
            them; shown on the card.
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
    def load(cls, path: str | Path) -> "Bundle":
        """Open a bundle's folder or archive and verify every file.

        An archive is unpacked into a temporary folder that lasts as long as the returned object.

        Raises:
            MedicError: there is nothing, it is no bundle, it was changed or damaged, or a newer medic wrote it.
        """
        path = Path(path)
        if not path.exists():
            raise MedicError(f"there is no bundle at {path}; make one with medic package or correct the path")
        if path.is_dir():
            archive = Path(f"{path.absolute()}.tar.gz")
            return cls(path, read_manifest(path), archive if archive.is_file() else None)
        unpacked = tempfile.TemporaryDirectory(prefix="medic-bundle-")
        try:
            shutil.unpack_archive(path, unpacked.name, "gztar", filter="data")
            [folder] = Path(unpacked.name).iterdir()
        except (shutil.ReadError, tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise MedicError(
                f"{path} is no bundle's archive or is damaged ({error}); get it again from its source"
            ) from error
        return cls(folder, read_manifest(folder), path, unpacked)

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
        """Return the golden images: names, bytes, and the prediction that is expected of them."""
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
        actual = self.predictor().predict(images)
        differences = np.abs(actual.probabilities - expected.probabilities).max(axis=1)
        if expected.grade is not None:
            differences = np.maximum(differences, np.abs(actual.grade - expected.grade))
        if not differences.max() <= self.manifest.tolerance:
            raise MedicError(
                f"the bundle {self.folder} answers {names[int(differences.argmax())]} {differences.max():.1e} away "
                f"from what is expected (allowed: {self.manifest.tolerance:.0e}); install the versions of libraries "
                "that its manifest names, or package the model again"
            )
        return float(differences.max())

    def __str__(self) -> str:
        return (
            f"bundle {self.manifest.version} at {self.folder}: {self.task.name}, {self.manifest.precision}, "
            f"{self.size / 1e6:.1f} MB, {self.manifest.calibration}. {self.manifest.notice}"
        )


def package(
    graph: str | Path, folder: str | Path, golden: Sequence[tuple[str, bytes]], about: About, *, archive: bool = True
) -> Bundle:
    """Make a bundle of an exported graph, whole or not at all, and prove it on its golden images.

    Args:
        graph: the graph, as ``export`` (which has proved it against torch) or ``quantize`` wrote it.
        folder: where to write; an older bundle there is replaced.
        golden: a few images as (name, file bytes); their answers travel along. Nothing but their pixels does: names and
            what files carry beside (EXIF, comments, DICOM elements) can say who the patient is.
        about: data and figures, for the manifest and the card.
        archive: whether ``folder``.tar.gz is written too; its bytes depend on the files alone.

    Returns:
        The bundle, loaded and verified.

    Raises:
        MedicError: no golden image, a graph that medic did not write, or a folder that holds something else or cannot
            be written.
    """
    folder, session = Path(folder), open_session(graph)
    model = said_of(session, graphs.MODEL)
    if model is None:
        raise MedicError(f"{graph} was not written by this medic; make the graph with medic export")
    if not golden:
        raise MedicError("a bundle needs golden images to prove itself with; give one or more as (name, bytes)")
    if folder.exists() and not (folder / MANIFEST).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise MedicError(f"{folder} exists and is no bundle; choose another folder or remove it")
    outputs = [output.name for output in session.get_outputs()]
    values = _values(model, folder.name, said_of(session, graphs.PRECISION), about, outputs)
    packed = folder.with_name(f"{folder.name}.tar.gz")
    with replacing(folder) as new:
        write_bytes(new / "model.onnx", Path(graph).read_bytes())
        _write_golden(new / "golden", session, Manifest(values), golden)
        _write_card(new, values)
        for name in [f"{module}.py" for module in RUNTIME.split()]:
            write_bytes(new / "medic" / name, (PACKAGE / name).read_bytes())
            # The packages' own __init__.py would import what does not travel.
            for parent in PurePosixPath(name).parents:
                write_bytes(new / "medic" / parent / "__init__.py", b"")
        write_bytes(new / "score.py", (PACKAGE / "deployment" / "bundle" / "score.py").read_bytes())
        if about.reference is not None:
            write_json(new / REFERENCE, about.reference.to_dict())
        values["files"] = {name: sha256(new / name) for name in list_files(new)}
        write_json(new / MANIFEST, values)
        Bundle.load(new).verify()
        if archive:
            write_bytes(packed, pack(new, folder.name))
        else:
            packed.unlink(missing_ok=True)
    return Bundle.load(folder)


def pack(folder: Path, name: str) -> bytes:
    """Return a folder as ``.tar.gz``. The same files give the same bytes: sorted, without times, owners or caches."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in list_files(folder):
            data, entry = (folder / path).read_bytes(), tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), compresslevel=6, mtime=0)


def _write_golden(folder: Path, session, manifest: Manifest, golden: Sequence[tuple[str, bytes]]) -> None:
    """Write the golden images, as nothing but pixels and named by number, and the graph's answers."""
    entries, prepared = [], []
    for number, (_, data) in enumerate(golden, 1):
        header, pixels = read_header(data), decode(data)
        suffix = ".jpeg" if header.format == "JPEG" else ".png"
        if header.format == "JPEG" and header.orientation == 1:
            data = _without_metadata(data)
        else:
            data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
        entries.append({"image": f"{number:02d}{suffix}"})
        write_bytes(folder / entries[-1]["image"], data)
        prepared.append(manifest.preprocessing.pixels(data))
    said = outputs_of(session, np.stack(prepared), OUTPUTS[:2])
    for name, values in said.items():
        for entry, value in zip(entries, values.tolist(), strict=True):
            entry[name] = value
    write_json(folder / "expected.json", entries)


def _without_metadata(jpeg: bytes) -> bytes:
    """Keep of a JPEG its tables, frame and scans, and the fields of JFIF and Adobe, which say what its colours are."""
    kept, at = [b"\xff\xd8"], 2
    while (marker := MARKER.search(jpeg, at)) and marker[0] != b"\xff\xd9":
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
        if marker[0] == b"\xff\xda" and (following := MARKER.search(jpeg, at)):  # a scan ends where no length says it
            at = following.start()
        segment = jpeg[marker.start() : at]
        if segment[4:9] == b"JFIF\0":
            segment = b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0"  # without a thumbnail
        elif segment[4:9] == b"Adobe":
            segment = b"\xff\xee\0\x0e" + segment[4:16]
        elif segment[1] not in PIXELS:
            continue
        kept.append(segment)
    return b"".join([*kept, b"\xff\xd9"])


def _write_card(folder: Path, values: dict) -> None:
    """Write the model card (Mitchell et al., arXiv 1810.03993), and as ``README.md`` with the header of the Hub."""
    template = jinja2.Template((Path(__file__).parent / "model_card.md.j2").read_text(), trim_blocks=True)
    card = template.render(values, said=Manifest(values), zip=zip)
    write_text(folder / "MODEL_CARD.md", card)
    tags = ["medical", "onnx", values["task"]["name"], *["synthetic"] * values["data"]["synthetic"]]
    header = f"---\nlibrary_name: onnx\npipeline_tag: image-classification\ntags: {json.dumps(tags)}\n---\n"
    write_text(folder / "README.md", header + card)


def _values(model: dict, name: str, precision: str, about: About, outputs: list[str]) -> dict:
    task, preprocessing = model.pop("task"), model.pop("preprocessing")
    size, classes = preprocessing["size"], len(task["classes"])
    shapes = {name: [-1, classes] if name == OUTPUTS[0] else [-1] for name in outputs if name != ACTIVATION}
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "task": task,
        "preprocessing": preprocessing,
        "inputs": [{"name": graphs.INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in shapes.items()],
        "precision": precision,
        "tolerance": TOLERANCE[precision],
        "model": model,
        "files": {},
        "data": {"description": about.data, "synthetic": about.synthetic},
        "evaluation": about.evaluation,
        "heatmap": {"method": "class activation map", "output": ACTIVATION} if ACTIVATION in outputs else None,
        "created": {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in MADE_WITH},
        },
    }
