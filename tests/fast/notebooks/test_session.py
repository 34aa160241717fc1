"""What notebooks call."""

import os
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
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


def test_begin_says_what_the_notebook_runs_on_without_naming_a_folder_of_the_machine(in_clone, capsys):
    session = begin("quick", "sample_data", seed=3)

    printed = capsys.readouterr().out
    assert "SYNTHETIC sample: nothing here is clinical" in printed
    assert "profile   quick" in printed
    assert "data      sample_data\n" in printed
    assert "numpy " in printed
    assert str(in_clone) not in printed
    assert (session.root, session.data) == (in_clone, in_clone / "sample_data")
    assert session.synthetic
    assert not session.full


def test_data_outside_the_clone_is_shown_relative_and_is_not_called_synthetic(in_clone, capsys):
    (in_clone.parent / "shared" / "data").mkdir(parents=True)
    session = begin("full", "../shared/data")

    printed = capsys.readouterr().out
    assert "data      ../shared/data\n" in printed
    assert "SYNTHETIC" not in printed
    assert session.full
    assert session.products == in_clone / "outputs" / "shared-data" / "full"


def test_a_generated_set_elsewhere_is_synthetic_if_it_says_so(in_clone, capsys):
    folder = in_clone / "elsewhere" / "retinopathy"
    folder.mkdir(parents=True)
    (folder / "SYNTHETIC.md").write_text("drawn")
    assert begin("quick", "elsewhere").synthetic


@pytest.mark.parametrize(
    ("profile", "data", "told"), [("fast", "sample_data", "'quick' or 'full'"), ("quick", "absent", "no such folder")]
)
def test_begin_refuses_what_it_does_not_know(in_clone, profile, data, told):
    with pytest.raises(MedicError, match=told):
        begin(profile, data)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PAIRS", "abc", "PAIRS is 'abc'; it must be a whole number"),
        ("SEED", 0.5, "SEED is 0.5; it must be a whole number"),
        ("SENSITIVITY", "0.9", "SENSITIVITY is '0.9'; it must be a number"),
        ("NETWORKS", "resnet18", "NETWORKS is 'resnet18'; it must be a list"),
    ],
)
def test_begin_refuses_a_parameter_of_another_type(in_clone, monkeypatch, name, value, told):
    for fine in (None, 1, [1]):
        monkeypatch.setitem(globals(), "NETWORKS" if isinstance(fine, list) else "EPOCHS", fine)
    begin("quick", "sample_data")
    monkeypatch.setitem(globals(), name, value)
    with pytest.raises(MedicError, match=told):
        begin("quick", "sample_data")


def test_a_notebook_outside_a_clone_is_told_where_to_go(tmp_path):
    with pytest.raises(MedicError, match="make lab"):
        find_root(tmp_path)


def test_only_the_quick_profile_on_the_sample_draws_the_readmes_figures(in_clone, monkeypatch):
    (in_clone / "photographs").mkdir()
    outputs = in_clone / "outputs"
    assert begin("quick", "sample_data").images == in_clone / "image"
    assert begin("full", "sample_data").images == outputs / "sample_data" / "full" / "image"
    assert begin("quick", "photographs").images == outputs / "photographs" / "quick" / "image"
    monkeypatch.setenv("MEDIC_OUTPUTS", "elsewhere")
    assert begin("quick", "photographs").images == in_clone / "elsewhere" / "photographs" / "quick" / "image"
    monkeypatch.setenv("MEDIC_IMAGES", str(in_clone / "pictures"))
    assert begin("quick", "sample_data").images == in_clone / "pictures"


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
            plots.title(axes, "It rises", session)
            plots.save(figure, "line", session)
            files.append((tmp_path / "line.png").read_bytes())
            plt.close(figure)
    assert (axes.get_title("left"), figure.get_supxlabel()) == ("It rises", "synthetic sample")
    assert files[0] == files[1]
    assert b"Software" not in files[0]
    assert os.listdir(tmp_path) == ["line.png"]


def test_begin_says_that_a_sample_of_real_images_is_small(in_clone, capsys):
    session = begin("quick", "sample_data", line="digits")
    printed = capsys.readouterr().out
    assert not session.synthetic
    assert "SMALL sample: real images, too few to compare with anything published" in printed
    assert "SYNTHETIC" not in printed
