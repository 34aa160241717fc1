"""A bundle proves itself, runs without the library, and refuses to be anything but what was packaged."""

import io
import json
import os
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medic.data.images.decode import decode
from medic.deployment import bundle as bundle_module
from medic.deployment.bundle import Bundle, pack, package
from medic.deployment.bundle.predictor import Predictor
from medic.deployment.compress import quantize
from medic.errors import ImageError, MedicError


def test_a_bundle_has_what_it_needs_and_proves_itself(bundle):
    there = {path.relative_to(bundle.folder).parts[0] for path in bundle.folder.iterdir()}
    assert there == {"model.onnx", "manifest.json", "MODEL_CARD.md", "golden", "score.py", "medic"}
    assert Bundle.load(bundle.folder).verify() <= 1e-4
    assert bundle.manifest.precision == "fp32"
    assert bundle.manifest.values["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 96, 96, 3]}]


def test_its_archive_holds_the_same_bundle(bundle):
    unpacked = Bundle.load(bundle.archive)
    assert unpacked.manifest.digest == bundle.manifest.digest
    assert unpacked.verify() <= 1e-4


def test_the_same_files_make_the_same_archive(bundle, tmp_path):
    os.utime(bundle.folder / "model.onnx")
    pack(bundle.folder, tmp_path / bundle.archive.name)
    assert (tmp_path / bundle.archive.name).read_bytes() == bundle.archive.read_bytes()


def test_the_card_says_what_must_be_said(bundle):
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    for said in ("Not a medical device", "SYNTHETIC", "Intended use", "Limits", "| accuracy | 0.750 | 0.500 | 0.900 |"):
        assert said in card
    assert "| No DR | 2 | 1 | 0 | 0 | 0 |" in card
    assert "synthetic" in bundle._repr_html_()
    assert "not calibrated" in str(bundle), "nor is a bundle of before there was a calibration"


def test_golden_images_do_not_carry_the_names_of_their_sources(bundle):
    names, _, _ = bundle.golden()
    assert names == ["01.jpeg", "02.jpeg", "03.jpeg", "04.jpeg", "05.jpeg"]
    assert not any("_left" in name for name in bundle.manifest.files)


def as_dicom(photograph: bytes) -> bytes:
    """A grey DICOM file of a photograph, which names a patient."""
    pixels = cv2.imdecode(np.frombuffer(photograph, np.uint8), cv2.IMREAD_GRAYSCALE)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid(entropy_srcs=["medic"])
    made.PatientName, made.PatientID = "Doe^Jane", "4711-0815"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PixelRepresentation = *pixels.shape, 1, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PhotometricInterpretation, made.PixelData = "MONOCHROME2", pixels.tobytes()
    made["PixelData"].VR = "OB"
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_a_golden_dicom_image_travels_as_its_pixels_without_its_patient(
    classifier, exported, photographs, about, tmp_path
):
    data = as_dicom(photographs[3])
    assert b"Doe^Jane" in data
    golden = [("Doe^Jane.dcm", data), ("a.jpeg", photographs[0])]
    made = package(classifier, tmp_path / "made", exported.path, golden, about, archive=False)
    names, images, expected = made.golden()
    assert names == ["01.png", "02.jpeg"]
    with Image.open(io.BytesIO(images[0])) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), decode(data)[:, :, 0])
    for path in made.folder.rglob("*"):
        assert not path.is_file() or not any(who in path.read_bytes() for who in (b"Doe^Jane", b"4711-0815")), path
    actual = made.predictor().predict([data])
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
    with pytest.raises(MedicError, match=r"takes uint8 \(N, 96, 96, 3\)"):
        bundle.predictor().predict_pixels(np.zeros((1, 5, 5, 3), np.uint8))


def test_an_int8_bundle_verifies_against_its_own_answers(classifier, exported, pixels, photographs, about, tmp_path):
    int8 = quantize(exported.path, tmp_path / "int8.onnx", [pixels[:40]])
    made = package(classifier, tmp_path / "small", int8, [("a.jpeg", photographs[1])], about, archive=False)
    assert made.manifest.precision == "int8"
    assert made.archive is None
    assert made.verify() <= 0.02
    assert "figures are those of the fp32 checkpoint" in (made.folder / "MODEL_CARD.md").read_text()
    [expected] = json.loads((made.folder / "golden" / "expected.json").read_text())
    assert len(expected["checkpoint"]["probabilities"]) == 5


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
    (tmp_path / "no.jpeg").write_text("not an image")
    ended = run_score(copied, "eye.jpeg", "no.jpeg", "absent.jpeg", tmp_path=tmp_path)
    assert f"medic from {copied / 'medic'}" in ended.stderr
    assert ended.returncode == 1, "two of the three could not be scored"
    eye, no, absent = map(json.loads, ended.stdout.splitlines())
    expected = bundle.predictor().predict([photographs[4]])
    assert list(eye["probabilities"].values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert eye["grade"] == expected.decided[0]
    assert "Not a medical device" in eye["notice"]
    assert "give a JPEG, PNG" in no["error"]
    assert "correct the path" in absent["error"]
    Bundle.load(copied)


def test_score_py_reads_dicom_files_where_pydicom_is_and_says_so_where_it_is_not(copied, photographs, tmp_path):
    (tmp_path / "eye.dcm").write_bytes(as_dicom(photographs[4]))
    (tmp_path / "eye.jpeg").write_bytes(photographs[4])
    ended = run_score(copied, "eye.dcm", tmp_path=tmp_path)
    assert ended.returncode == 0
    assert "grade" in json.loads(ended.stdout)
    ended = run_score(copied, "eye.dcm", "eye.jpeg", tmp_path=tmp_path, lacking="pydicom")
    dicom, jpeg = map(json.loads, ended.stdout.splitlines())
    assert "pip install pydicom" in dicom["error"]
    assert "grade" in jpeg


def test_score_py_is_an_entry_script_for_azure(copied, photographs, tmp_path):
    program = (
        "import base64, json, runpy, sys; module = runpy.run_path(sys.argv[1]); module['init']();"
        "data = open(sys.argv[2], 'rb').read(); text = json.dumps({'images': [base64.b64encode(data).decode()]});"
        "print(json.dumps([module['run'](data), module['run'](text), module['run']('{}')]))"
    )
    (tmp_path / "eye.jpeg").write_bytes(photographs[2])
    command = [sys.executable, "-c", program, str(copied / "score.py"), "eye.jpeg"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    raw, encoded, malformed = json.loads(ended.stdout)
    assert raw == encoded
    assert raw[0]["task"] == "retinopathy"
    assert "images" in malformed[0]["error"]


def test_a_changed_file_is_refused(copied):
    path = copied / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for load in (Bundle.load, Predictor):
        with pytest.raises(MedicError, match=r"changed or damaged at model\.onnx"):
            load(copied)


def test_a_missing_file_is_named(copied):
    (copied / "golden" / "02.jpeg").unlink()
    with pytest.raises(MedicError, match=r"lacks golden/02\.jpeg"):
        Bundle.load(copied)


def test_a_file_too_many_is_named(copied):
    (copied / "medic" / "extra.py").write_text("")
    with pytest.raises(MedicError, match=r"does not name: medic/extra\.py"):
        Bundle.load(copied)


def test_a_link_in_place_of_a_file_is_not_followed_outside(copied, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("")
    (copied / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MedicError, match="does not name: linked"):
        Bundle.load(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values | {"version": 99}, "format version 99"),
        (lambda values: values | {"format": "zip"}, "not of medic"),
        (lambda values: {key: value for key, value in values.items() if key != "task"}, "damaged"),
        (lambda values: values | {"files": ["a"]}, "damaged"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(copied, change, message):
    path = copied / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(MedicError, match=message):
        Bundle.load(copied)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    with pytest.raises(MedicError, match="there is no bundle at"):
        Bundle.load(tmp_path / "absent")
    with pytest.raises(MedicError, match="is no bundle"):
        Bundle.load(tmp_path)
    (tmp_path / "text.tar.gz").write_text("not an archive")
    with pytest.raises(MedicError, match="is no bundle's archive or is damaged"):
        Bundle.load(tmp_path / "text.tar.gz")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(MedicError, match="damaged"):
        Bundle.load(tmp_path)


def test_a_cut_archive_is_refused(bundle, tmp_path):
    (tmp_path / "cut.tar.gz").write_bytes(bundle.archive.read_bytes()[:100_000])
    with pytest.raises(MedicError, match="damaged"):
        Bundle.load(tmp_path / "cut.tar.gz")


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "discs/../../escaped"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, name):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"bad"))
    with pytest.raises(MedicError, match="no bundle"):
        Bundle.load(archive)
    assert not any(path.name == "escaped" for path in tmp_path.parent.rglob("*"))


def test_links_in_an_archive_are_refused(tmp_path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("discs/model.onnx")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(entry)
    with pytest.raises(MedicError, match="is a link"):
        Bundle.load(archive)


def test_packaging_that_fails_leaves_nothing(classifier, exported, photographs, about, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, "write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        package(classifier, tmp_path / "new", exported.path, [("a.jpeg", photographs[0])], about)
    assert list(tmp_path.iterdir()) == []


def test_packaging_again_replaces_and_a_failure_keeps_the_old_one(
    classifier, exported, photographs, about, tmp_path, monkeypatch
):
    golden = [("a.jpeg", photographs[0])]
    first = package(classifier, tmp_path / "it", exported.path, golden, about)
    second = package(classifier, tmp_path / "it", exported.path, golden * 2, about)
    assert len(Bundle.load(tmp_path / "it").golden()[0]) == 2

    def full(*_):
        raise MedicError("no space left")

    monkeypatch.setattr(bundle_module, "pack", full)
    with pytest.raises(MedicError, match="no space left"):
        package(classifier, tmp_path / "it", exported.path, golden, about)
    assert Bundle.load(tmp_path / "it").manifest.digest == second.manifest.digest != first.manifest.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it", "it.tar.gz"]


def test_packaging_refuses_what_would_make_no_sound_bundle(classifier, exported, photographs, about, taught, tmp_path):
    golden = [("a.jpeg", photographs[0])]
    with pytest.raises(MedicError, match="needs golden images"):
        package(classifier, tmp_path / "new", exported.path, [], about)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(MedicError, match="is no bundle; choose another folder"):
        package(classifier, tmp_path / "mine", exported.path, golden, about)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
    other = taught("shufflenet_v2_x0_5", classifier.objective, pixels, np.arange(10) % 5)
    with pytest.raises(MedicError, match="disagree"):
        package(other, tmp_path / "new", exported.path, golden, about)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_bundle_can_be_made_from_a_checkpoint_folder(classifier, exported, photographs, about, tmp_path):
    classifier.save(tmp_path / "best")
    golden = [("a.png.JPEG", photographs[0])]
    made = package(tmp_path / "best", tmp_path / "made", exported.path, golden, about, archive=False)
    assert made.golden()[0] == ["01.jpeg"]
