"""Every notebook, three times looked at: by the standard, as committed on the sample, and on real photographs.

Under xdist each class keeps to one worker and goes through the notebooks in order, so that what one makes (a prepared
set, a trained network, a bundle) serves the next, as for a reader.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from medic.notebooks.run import execute
from medic.notebooks.session import recorded
from standard import check_notebook

ROOT = Path(__file__).resolve().parents[2]
FOUND = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "code").glob("[0-9]*_*/*.ipynb"))}


EXPECTED = tomllib.loads((Path(__file__).parent / "expected.toml").read_text())
SHOWN = [(name, *pair) for name, held in EXPECTED.items() for pair in held.get("committed", {}).items()]
CHECK, LESIONS = (
    "01_data_acquisition_and_understanding/04_check_and_correct_labels",
    "02_modeling/08_classify_skin_lesions",
)


def products(folder: Path) -> dict[str, str]:
    """The environment that sends everything a notebook writes into ``folder``."""
    return {"MEDIC_OUTPUTS": str(folder), "MEDIC_IMAGES": str(folder / "image")}


def test_every_notebook_has_its_expectations():
    assert sorted(EXPECTED) == sorted(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_the_notebook_keeps_the_standard(name):
    findings = check_notebook(FOUND[name])
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(("name", "low", "baseline"), SHOWN)
def test_what_the_notebook_shows_lies_above_what_it_is_compared_with(name, low, baseline):
    scalars = recorded(FOUND[name])
    assert scalars[low] > scalars.get(baseline, baseline)


@pytest.mark.notebooks
class TestAsCommittedOnTheSample:
    @pytest.fixture(scope="class")
    def outputs(self, tmp_path_factory):
        return tmp_path_factory.mktemp("sample") / "outputs"

    @pytest.mark.parametrize("name", FOUND)
    def test_it_runs_and_the_marked_cells_give_what_is_committed(self, name, outputs):
        # The subprocess is a pytest of its own; what xdist told this one is not for it.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
        command += ["--nbval-cell-timeout=600", "-p", "no:xdist", "-p", "no:cacheprovider", str(FOUND[name])]
        how = {"cwd": ROOT, "env": environment | products(outputs), "capture_output": True, "text": True}
        ended = subprocess.run(command, check=False, **how)
        assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-2000:]}"


@pytest.mark.notebooks
@pytest.mark.real_data
class TestOnRealPhotographs:
    @pytest.fixture(scope="class")
    def outputs(self, tmp_path_factory):
        return tmp_path_factory.mktemp("real") / "outputs"

    @pytest.fixture
    def scalars(self, outputs, monkeypatch):
        """Runs a notebook on a data folder: what it records."""

        def run(name: str, data: Path, parameters: dict) -> dict:
            for variable, value in products(outputs).items():
                monkeypatch.setenv(variable, value)
            copy = outputs / data.name / f"{name}.ipynb"
            failure = execute(FOUND[name], copy, {"DATA": os.path.relpath(data, ROOT), **parameters}, timeout=600)
            assert failure is None, f"cell {failure.cell}\n{failure.source}\n{failure.error}"
            return recorded(copy)

        return run

    @pytest.mark.parametrize("name", FOUND)
    def test_it_runs_and_records_what_it_should(self, name, scalars, real_data):
        expected = EXPECTED[name]
        found = scalars(name, real_data, expected.get("with", {}))
        for scalar, (low, high) in expected["real"].items():
            assert scalar in found, f"{name} does not record {scalar}; it records {sorted(found)}"
            assert found[scalar] is not None, f"{scalar} is not finite"
            assert low <= found[scalar] <= high, f"{scalar} is {found[scalar]}, not in [{low}, {high}]"

    @pytest.fixture(scope="class")
    def own_folder(self, real_data, tmp_path_factory) -> Path:
        """36 real photographs, sorted into three folders whose names nobody has foreseen."""
        folder = tmp_path_factory.mktemp("own") / "my photographs"
        verdicts = pd.read_csv(real_data / "skin_lesion" / "groundtruth.csv", header=None, names=["image", "verdict"])
        benign, malignant = (verdicts.loc[verdicts["verdict"] == one, "image"] for one in ("benign", "malignant"))
        for name, images in {"Flecken": benign[:12], "round spots": benign[40:52], "worrying": malignant[:12]}.items():
            (folder / name).mkdir(parents=True)
            for image in images:
                shutil.copy(real_data / "skin_lesion" / "images" / f"{image}.jpg", folder / name / f"{image}.JPG")
        return folder

    @pytest.mark.parametrize("name", [CHECK, LESIONS])
    def test_a_folder_of_ones_own_goes_through_to_a_bundle(self, name, scalars, outputs, own_folder):
        scalars(name, own_folder, EXPECTED[name].get("with", {}))
        if name == LESIONS:
            (manifest,) = outputs.glob("*/quick/bundles/own/manifest.json")
            assert json.loads(manifest.read_text())["task"]["classes"] == ["Flecken", "round spots", "worrying"]
