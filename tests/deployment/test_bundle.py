"""A bundle proves itself, runs without the library, and refuses to be anything but what was packaged."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image, PngImagePlugin

from medic.deployment import bundle as bundle_module
from medic.deployment.bundle import Bundle, pack, package
from medic.deployment.compress import quantize
from medic.errors import ImageError, MedicError
from medic.sample.chest_set import dicom

PATIENT = "Doe^Jane"


def test_a_bundle_has_what_it_needs_and_proves_itself(bundle):
    there = {path.name for path in bundle.folder.iterdir()}
    assert there == {"model.onnx", "manifest.json", "MODEL_CARD.md", "README.md", "golden", "score.py", "medic"}
    assert Bundle.load(bundle.folder).verify() <= 1e-4
    assert bundle.manifest.precision == "fp32"
    assert bundle.manifest.values["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 96, 96, 3]}]
    assert [output["name"] for output in bundle.manifest.values["outputs"]] == ["probabilities", "grade"]
    assert bundle.manifest.values["heatmap"] == {"method": "class activation map", "output": "class_activation"}


def test_its_archive_holds_the_same_bundle_and_the_same_files_make_the_same_archive(bundle):
    unpacked = Bundle.load(bundle.archive)
    assert unpacked.manifest.digest == bundle.manifest.digest
    assert unpacked.verify() <= 1e-4
    os.utime(bundle.folder / "model.onnx")
    assert pack(bundle.folder, "discs") == bundle.archive.read_bytes()


def test_the_card_says_what_must_be_said_and_has_a_header_for_the_hub(bundle):
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    for said in (
        "Not a medical device",
        "Trained on synthetic drawings",
        "Intended use",
        "Probabilities are not calibrated",
        "They are a normal distribution around the grade",
        "| metric | value | low | high | baseline |\n| --- | --- | --- | --- | --- |\n| accuracy | 0.750 | 0.500 |",
        "| No DR | 2 | 1 | 0 | 0 | 0 |",
        "- title: tests",
        "heatmap (class activation map) is relative",
    ):
        assert said in card
    header = "---\nlibrary_name: onnx\npipeline_tag: image-classification\n"
    assert (bundle.folder / "README.md").read_text().startswith(header)
    assert (bundle.folder / "README.md").read_text().endswith(card)
    assert "not calibrated" in str(bundle), "nor is a bundle of before there was a calibration"
    assert "synthetic" in str(bundle)


def as_dicom(photograph: bytes) -> bytes:
    """A grey DICOM file of a photograph, which names a patient."""
    pixels = cv2.imdecode(np.frombuffer(photograph, np.uint8), cv2.IMREAD_GRAYSCALE)
    return dicom(pixels, {"id": PATIENT, "age": "050Y", "sex": "F", "view": "PA"})


def with_patient(photograph: bytes, kind: str) -> bytes:
    """The photograph as another file, which names a patient beside its pixels."""
    if kind == "DICOM":
        return as_dicom(photograph)
    image, file, text = Image.open(io.BytesIO(photograph)), io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Comment", PATIENT)
    exif = Image.Exif()
    exif[0x013B] = PATIENT
    options = {"JPEG": {"comment": PATIENT, "exif": exif}, "PNG": {"pnginfo": text}, "TIFF": {"description": PATIENT}}
    image.save(file, kind, **options[kind])
    return file.getvalue()


def with_segment(photograph: bytes, marker: int, *, last: bool = False) -> bytes:
    """A progressive JPEG with a segment that names a patient at its beginning, or before the last of its scans."""
    Image.open(io.BytesIO(photograph)).save(file := io.BytesIO(), "JPEG", progressive=True)
    at = file.getvalue().rindex(b"\xff\xda") if last else 2
    segment = bytes([0xFF, marker, 0, 2 + len(PATIENT)]) + PATIENT.encode()
    return file.getvalue()[:at] + segment + file.getvalue()[at:]


@pytest.mark.parametrize("kind", ["JPEG", "JFIF", "comment of a scan", "PNG", "TIFF", "DICOM"])
def test_a_golden_image_travels_as_its_pixels_without_its_patient(kind, bundle, exported, photographs, about, tmp_path):
    segments = {"JFIF": (0xE0, False), "comment of a scan": (0xFE, True)}
    marker, last = segments.get(kind, (0, False))
    data = with_segment(photographs[3], marker, last=last) if marker else with_patient(photographs[3], kind)
    assert PATIENT.encode() in data
    made = package(exported.path, tmp_path / "made", [(f"{PATIENT}.x", data), ("a.jpeg", photographs[0])], about)
    names, _, expected = made.golden()
    assert names == ["01.png" if kind in ("PNG", "TIFF", "DICOM") else "01.jpeg", "02.jpeg"]
    for path in made.folder.rglob("*"):
        assert not path.is_file() or PATIENT.encode() not in path.read_bytes(), path
    actual = bundle.predictor().predict([data])
    np.testing.assert_allclose(actual.probabilities[0], expected.probabilities[0], atol=1e-4)


def test_a_predictor_gives_what_the_model_gives(bundle, classifier, photographs):
    expected = classifier.predict_pixels(np.stack([classifier.preprocessing.pixels(data) for data in photographs]))
    predictor = bundle.predictor(threads=1)
    actual = predictor.predict(photographs)
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-4)
    np.testing.assert_allclose(actual.grade, expected.grade, atol=1e-4)
    assert len(set(actual.decided)) >= 4, "the test model should tell grades apart"
    assert predictor.answers(actual)[3]["class"] == predictor.task.classes[actual.decided[3]]


def test_a_predictor_says_which_image_cannot_be_read(bundle, photographs):
    with pytest.raises(ImageError, match=r"image 2: these 4 bytes .*give a JPEG, PNG"):
        bundle.predictor().predict([photographs[0], b"text"])
    for pixels in (np.zeros((1, 5, 5, 3), np.uint8), np.zeros((0, 96, 96, 3), np.uint8)):
        with pytest.raises(MedicError, match=r"takes uint8 \(N, 96, 96, 3\)"):
            bundle.predictor().predict_pixels(pixels)


def test_an_int8_bundle_verifies_against_its_own_answers(exported, pixels, photographs, about, tmp_path):
    int8 = quantize(exported.path, tmp_path / "int8.onnx", pixels[:40])
    made = package(int8, tmp_path / "small", [("a.jpeg", photographs[1])], about, archive=False)
    assert (made.manifest.precision, made.archive) == ("int8", None)
    assert made.verify() <= 0.02
    assert "figures are those of the fp32 checkpoint" in (made.folder / "MODEL_CARD.md").read_text()


# What runs here has no torch, no pandas and no installed medic to fall back on.
BLOCKER = """
import atexit, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "lightning", "pandas", "kserve", "fastapi", "sklearn"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
atexit.register(lambda: print("medic from", sys.modules["medic"].__file__, file=sys.stderr))
"""


def run_score(folder, *arguments, tmp_path, lacking=""):
    (tmp_path / "blocker").mkdir(exist_ok=True)
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER.replace('"sklearn"', f'"sklearn", "{lacking}"'))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "blocker")}
    command = [sys.executable, str(folder / "score.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)


def test_score_py_runs_without_the_library_and_leaves_no_trace(bundle, copied, photographs, tmp_path):
    (tmp_path / "eye.jpeg").write_bytes(photographs[4])
    (tmp_path / "eye.dcm").write_bytes(as_dicom(photographs[4]))
    (tmp_path / "no.jpeg").write_text("not an image")
    ended = run_score(copied, "eye.jpeg", "no.jpeg", "absent.jpeg", "eye.dcm", tmp_path=tmp_path)
    assert f"medic from {copied / 'medic'}" in ended.stderr
    assert ended.returncode == 1, "two of the four could not be scored"
    eye, no, absent, dicom = map(json.loads, ended.stdout.splitlines())
    expected = bundle.predictor().predict([photographs[4]])
    assert list(eye["probabilities"].values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert eye["grade"] == expected.decided[0]
    assert "Not a medical device" in eye["notice"]
    assert "give a JPEG, PNG" in no["error"]
    assert "correct the path" in absent["error"]
    assert "grade" in dicom
    Bundle.load(copied)
    ended = run_score(copied, "eye.dcm", "eye.jpeg", tmp_path=tmp_path, lacking="pydicom")
    dicom, jpeg = map(json.loads, ended.stdout.splitlines())
    assert "pip install pydicom" in dicom["error"]
    assert "grade" in jpeg


AZURE = """
import io, json, runpy, sys
from types import ModuleType, SimpleNamespace
for name in ("", ".api", ".api.aml_request", ".api.aml_response"):
    sys.modules["azureml_inference_server_http" + name] = ModuleType(name)
sys.modules["azureml_inference_server_http.api.aml_request"].rawhttp = lambda function: function
sys.modules["azureml_inference_server_http.api.aml_response"].AMLResponse = lambda *answer: answer
module = runpy.run_path(sys.argv[1])
module["init"]()
for method, kind, path in (("POST", "image/jpeg", "eye"), ("POST", "application/json", "json"), ("POST", "", "text"),
                           ("POST", "application/json", "text"), ("GET", "", "text"), ("POST", "", "large")):
    data = open(path, "rb")
    answer, status, _ = module["run"](SimpleNamespace(method=method, mimetype=kind, stream=data))
    print(json.dumps([status, json.loads(answer)]))
"""


def test_score_py_is_an_entry_script_for_azure(bundle, copied, photographs, tmp_path):
    images = [base64.encodebytes(data).decode() for data in photographs[2:4]]  # wrapped, as some encoders do
    contents = {"eye": photographs[2], "json": json.dumps({"images": images}).encode(), "text": b"{}"}
    for name, data in (contents | {"large": bytes((32 << 20) + 1)}).items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", AZURE, str(copied / "score.py")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    one, several, text, malformed, get, large = map(json.loads, ended.stdout.splitlines())
    assert [status for status, _ in (one, several, text, malformed, get, large)] == [200, 200, 415, 400, 405, 413]
    expected = bundle.predictor().predict(photographs[2:4]).probabilities.tolist()
    assert [list(answer["probabilities"].values()) for answer in several[1]] == [
        pytest.approx(x, abs=1e-4) for x in expected
    ]
    assert one[1] == several[1][0]
    assert (text[1]["reason"], large[1]["reason"]) == ("unsupported", "too_large")
    assert "images" in malformed[1]["error"]


def corrupt(folder):
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def rewrite(**changed):
    def change(folder):
        values = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(
            json.dumps({k: v for k, v in (values | changed).items() if v is not None})
        )

    return change


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (corrupt, r"changed or damaged at model\.onnx"),
        (lambda folder: (folder / "golden" / "02.jpeg").unlink(), r"lacks golden/02\.jpeg"),
        (lambda folder: (folder / "medic" / "extra.py").write_text(""), r"does not name: medic/extra\.py"),
        (lambda folder: (folder / "linked").symlink_to(folder.parent), "does not name: linked"),
        (rewrite(version=99), "version 99"),
        (rewrite(format="zip"), "format 'zip'"),
        (rewrite(task=None), "damaged"),
        (rewrite(files=["a"]), "damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "is no bundle"),
    ],
)
def test_a_folder_that_is_not_what_was_packaged_is_refused(copied, harm, message):
    harm(copied)
    with pytest.raises(MedicError, match=message):
        Bundle.load(copied)


def archive_of(path, name, **entry):
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        for key, value in entry.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(bytes(info.size)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, whole: None, "there is no bundle at"),
        (lambda path, whole: path.write_text("text"), "is no bundle's archive or is damaged"),
        (lambda path, whole: path.write_bytes(whole[:100_000]), "damaged"),
        (lambda path, whole: archive_of(path, "../escaped", size=3), "no bundle"),
        (lambda path, whole: archive_of(path, "/escaped", size=3), "no bundle"),
        (lambda path, whole: archive_of(path, "discs/../../escaped", size=3), "no bundle"),
        (lambda path, whole: archive_of(path, "a/b", type=tarfile.SYMTYPE, linkname="/etc/hostname"), "no bundle"),
    ],
)
def test_an_archive_that_is_none_is_refused_and_writes_nothing_outside(bundle, tmp_path, make, message):
    make(tmp_path / "it.tar.gz", bundle.archive.read_bytes())
    with pytest.raises(MedicError, match=message):
        Bundle.load(tmp_path / "it.tar.gz")
    assert not any(path.name == "escaped" for path in tmp_path.parent.rglob("*"))


def test_packaging_again_replaces_and_a_failure_leaves_what_was_there(
    exported, photographs, about, tmp_path, monkeypatch
):
    golden = [("a.jpeg", photographs[0])]
    first = package(exported.path, tmp_path / "it", golden, about)
    second = package(exported.path, tmp_path / "it", golden * 2, about)
    assert len(Bundle.load(tmp_path / "it").golden()[0]) == 2

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, "pack", fail)
    for name in ("it", "new"):
        with pytest.raises(KeyboardInterrupt):
            package(exported.path, tmp_path / name, golden, about)
    assert Bundle.load(tmp_path / "it").manifest.digest == second.manifest.digest != first.manifest.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it", "it.tar.gz"]


def test_packaging_refuses_what_would_make_no_sound_bundle(exported, photographs, about, tmp_path):
    golden = [("a.jpeg", photographs[0])]
    with pytest.raises(MedicError, match="needs golden images"):
        package(exported.path, tmp_path / "new", [], about)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(MedicError, match="is no bundle; choose another folder"):
        package(exported.path, tmp_path / "mine", golden, about)
    graph = onnx.load(exported.path)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(MedicError, match="not written by this medic"):
        package(tmp_path / "foreign.onnx", tmp_path / "new", golden, about)
    assert not (tmp_path / "new").exists()
