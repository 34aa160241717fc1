"""What notebooks call."""

import io
import os
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest

from medic import plots
from medic.errors import MedicError
from medic.notebooks.session import begin, find_root, record, show_source


@pytest.fixture
def in_clone(clone, monkeypatch):
    folder = clone / "code" / "01_data_acquisition_and_understanding"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("MEDIC_OUTPUTS", "MEDIC_IMAGES"):
        monkeypatch.delenv(name, raising=False)
    with matplotlib.rc_context():
        yield clone


@pytest.mark.parametrize(
    ("marked", "profile", "data", "line", "notice"),
    [
        (None, "quick", "sample_data", None, "SYNTHETIC sample: nothing here is clinical"),
        (None, "quick", "sample_data", "digits", "SMALL sample: real images, too few to compare with anything"),
        (None, "full", "../shared/data", None, ""),
        ("../shared/data/retinopathy", "quick", "../shared/data", None, "SYNTHETIC"),
    ],
)
def test_begin_says_what_the_notebook_runs_on_without_naming_a_folder_of_the_machine(
    in_clone, capsys, marked, profile, data, line, notice
):
    (in_clone / "../shared/data/retinopathy").mkdir(parents=True)
    if marked:
        (in_clone / marked / "SYNTHETIC.md").write_text("drawn")
    session = begin(profile, data, line=line)
    printed = capsys.readouterr().out
    for said in (f"profile   {profile}", f"data      {data}\n", "numpy ", notice):
        assert said in printed
    assert str(in_clone) not in printed
    assert ("SYNTHETIC" in printed) == session.synthetic == notice.startswith("SYNTHETIC")
    assert (session.root, session.full) == (in_clone, profile == "full")
    assert session.products == in_clone / "outputs" / data.replace("../", "").replace("/", "-") / profile


@pytest.mark.parametrize(
    ("profile", "data", "given", "told"),
    [
        ("fast", "sample_data", {}, "'quick' or 'full'"),
        ("quick", "absent", {}, "no such folder"),
        ("quick", "sample_data", {"PAIRS": "abc"}, "PAIRS is 'abc'; it must be a whole number"),
        ("quick", "sample_data", {"EPOCHS": 0}, "EPOCHS is 0; it must be a whole number from 1 on"),
        ("quick", "sample_data", {"CLINIC": float("nan")}, "CLINIC is nan; it must be a number"),
        ("quick", "sample_data", {"DATA": 5}, "DATA is 5; it must be a folder"),
        ("quick", "sample_data", {"SEED": 0.5}, "SEED is 0.5; it must be a whole number"),
        ("quick", "sample_data", {"SENSITIVITY": "0.9"}, "SENSITIVITY is '0.9'; it must be a number"),
        ("quick", "sample_data", {"NETWORKS": "resnet18"}, "NETWORKS is 'resnet18'; it must be a list"),
    ],
)
def test_begin_refuses_what_it_does_not_know(in_clone, monkeypatch, profile, data, given, told):
    for name, value in {"EPOCHS": 1, "TRIALS": None, "WORKERS": [1], **given}.items():
        monkeypatch.setitem(globals(), name, value)
    with pytest.raises(MedicError, match=told):
        begin(profile, data)


def test_a_notebook_outside_a_clone_is_told_where_to_go(tmp_path):
    with pytest.raises(MedicError, match="make lab"):
        find_root(tmp_path)


def test_only_the_quick_profile_on_the_sample_draws_the_readmes_figures(in_clone, monkeypatch):
    (in_clone / "photographs").mkdir()

    def images(profile: str, data: str) -> str:
        return begin(profile, data).images.relative_to(in_clone).as_posix()

    assert images("quick", "sample_data") == "image"
    assert images("full", "sample_data") == "outputs/sample_data/full/image"
    assert images("quick", "photographs") == "outputs/photographs/quick/image"
    monkeypatch.setenv("MEDIC_OUTPUTS", "elsewhere")
    assert images("quick", "photographs") == "elsewhere/photographs/quick/image"
    monkeypatch.setenv("MEDIC_IMAGES", str(in_clone / "pictures"))
    assert images("quick", "sample_data") == "pictures"


def test_one_seed_gives_the_same_numbers(in_clone):
    drawn = []
    for _ in range(2):
        begin("quick", "sample_data", seed=5)
        drawn.append(np.random.random())  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_only_scalars_are_recorded():
    with pytest.raises(MedicError, match="one number, truth value or text"):
        record("losses", [1, 2])


def test_show_source_shows_the_librarys_own_code():
    assert "def find_root" in show_source(find_root).data


def test_a_figure_is_shown_in_full_colour_as_png_or_where_that_is_smaller_as_jpeg():
    found = []
    for drawn in (np.zeros((200, 300)), np.random.default_rng(0).random((200, 300, 3))):
        figure, axes = plt.subplots()
        axes.imshow(drawn)
        picture = PIL.Image.open(io.BytesIO(plots.encoded(figure, dpi=100)))
        found.append((picture.format, picture.mode, picture.width))
    assert found == [("PNG", "RGB", 640), ("JPEG", "RGB", 640)]


def test_a_figure_from_the_sample_says_so_and_is_the_same_file_each_time(tmp_path):
    session = SimpleNamespace(synthetic=True, images=tmp_path)
    with matplotlib.rc_context():
        matplotlib.use("agg")
        plots.use_style()
        files = []
        for _ in range(2):
            figure, axes = plt.subplots()
            axes.plot([1, 2])
            with pytest.raises(MedicError, match="synthetic"):
                plots.save(figure, "line", session)
            plots.present(figure, "It rises", "line", session)
            files.append((tmp_path / "line.png").read_bytes())
            assert not plt.fignum_exists(figure.number)
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("It rises", "synthetic sample")
    assert files[0] == files[1]
    assert b"Software" not in files[0]
    assert os.listdir(tmp_path) == ["line.png"]
