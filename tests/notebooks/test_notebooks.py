"""Every notebook, three times looked at: by the standard, as committed on the sample, and on real photographs.

Under xdist each class keeps to one worker and goes through the notebooks in order, so that what one makes (a prepared
set, a trained network, a bundle) serves the next, as for a reader.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medic.notebooks.run import execute
from medic.notebooks.session import recorded
from standard import check_notebook

ROOT = Path(__file__).resolve().parents[2]
FOUND = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "code").glob("[0-9]*_*/*.ipynb"))}


@dataclass(frozen=True)
class Run:
    """How a notebook is run on the real photographs, and what it must record there.

    Attributes:
        parameters: fewer images, fewer epochs; each must be one of the notebook's own.
        checks: the scalars that it must record, each with the range it must lie in, ends included.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, tuple[float, float]] = field(default_factory=dict)


# One line a notebook, such as
#   "02_modeling/03_grade_retinopathy": Run({"EPOCHS": 1}, {"quadratic_weighted_kappa": (-1, 1)}),
STAGE_1, STAGE_2, STAGE_3 = "01_data_acquisition_and_understanding", "02_modeling", "03_deployment"
NOTEBOOKS: dict[str, Run] = {
    f"{STAGE_1}/01_acquire_data": Run(
        checks={
            "images": (404, 404),
            "patients": (202, 202),
            "absent_images": (0, 0),
            "same_bytes_from_zip": (1, 1),
            "lesions": (200, 200),
            "patients_with_both_eyes": (202, 202),
            "share_wrong_after_shift": (0.6, 0.75),
            "share_of_equal_pairs": (0.73, 0.74),
        },
    ),
    f"{STAGE_1}/02_observe_data": Run(
        checks={
            "majority_share": (0.46, 0.47),
            "unreadable": (0, 0),
            "share_of_differing_pairs": (0.26, 0.27),
            "forest_accuracy": (0.2, 0.5),
            "forest_kappa": (0.1, 0.4),
        },
    ),
    f"{STAGE_1}/03_prepare_data": Run(
        checks={"patients_crossing": (0, 0), "prepared_images": (404, 404), "skipped_images": (0, 0)}
    ),
    f"{STAGE_1}/04_check_and_correct_labels": Run(
        checks={
            "images": (200, 200),
            "copies": (2, 2),
            "agreement_out_of_fold": (0.7, 0.9),
            "suspected_labels": (5, 60),
            "flipped_precision": (0.15, 0.8),
            "repeated_images_left": (0, 0),
        }
    ),
    f"{STAGE_1}/05_read_chest_xrays": Run(
        checks={
            "images": (91, 91),
            "patients": (69, 69),
            "kinds_of_files": (2, 2),
            "share_no_finding": (0.51, 0.52),
            "share_several_findings": (0.34, 0.35),
            "dicom_difference": (0, 0),
            "auroc_view_alone": (0.41, 0.43),
        },
    ),
    f"{STAGE_2}/01_train_lenet_three_ways": Run(
        {"EPOCHS": 2, "COPIES": 1},
        {"largest_difference": (0, 1e-4), "headline": (0.8, 1), "accuracy_jax": (0.8, 1), "own_accuracy_jax": (0.6, 1)},
    ),
    f"{STAGE_2}/02_load_and_augment": Run(
        {"WORKERS": [0, 1], "EPOCHS": 4, "LESION_EPOCHS": 1, "REPEATS": 1},
        {"loading_images_per_second": (1, 1e6), "headline": (-1, 1), "auroc_hue": (0, 1)},
    ),
    f"{STAGE_2}/03_grade_retinopathy": Run(
        {"EPOCHS": 1, "IMAGE_SIZE": 32},
        {
            "accuracy": (0.4, 1),
            "macro_f1": (0.25, 1),
            "quadratic_weighted_kappa": (0.3, 1),
            "baseline_macro_f1": (0.1, 0.2),
            "largest_difference": (0, 0.05),
            "difference_to_medic": (0, 0.05),
        },
    ),
    f"{STAGE_2}/04_compare_backbones_and_objectives": Run(
        {"EPOCHS": 1, "IMAGE_SIZE": 64},
        {
            "headline": (-1, 1.5),
            "kappa_corn": (-1, 1),
            "kappa_labels_in_place": (-1, 1),
            "kappa_labels_shifted": (-1, 1),
            "kappa, as trained": (-1, 1),
            "kappa, other constants": (-1, 1),
            "decisions_as_scikit_learn": (0.9, 1),
        },
    ),
    f"{STAGE_2}/05_screen_chest_xrays": Run(
        checks={
            "frozen_tensors_changed": (0, 0),
            "tensors_moved_without_eval": (100, 200),
            "headline": (0, 1),
            "sensitivity_at_operating_point": (0.4, 1),
            "largest_difference": (0, 0.02),
        },
    ),
    f"{STAGE_2}/06_find_chest_findings": Run(
        {"DRAWS": 200},
        {
            "headline": (0.3, 1),
            "bootstrap_difference": (0, 1e-9),
            "difference_to_medic": (0, 0.3),
            "stated_by_observed": (0.5, 5),
        },
    ),
    f"{STAGE_2}/07_combine_and_regularise": Run(
        {"IMAGE_SIZE": 64}, {"headline": (-1, 1), "contradictions_left": (0, 0)}
    ),
    f"{STAGE_2}/08_classify_skin_lesions": Run(
        {"NETWORKS": ["efficientnet_lite0"], "EPOCHS": 1},
        {"images": (195, 200), "headline": (0.5, 1), "auroc_with_medic": (0, 1), "bundle_difference": (0, 1e-4)},
    ),
    f"{STAGE_2}/09_tune_hyperparameters": Run(
        {"TRIALS": 25, "TRAININGS": 2},
        {
            "fall_of_loss": (0.05, 2),
            "steepest_rate": (1e-5, 0.3),
            "headline": (0.5, 1),
            "gain": (-0.2, 0.4),
        },
    ),
    f"{STAGE_2}/10_trust_the_numbers": Run(
        checks={
            "temperature_difference": (0, 1e-3),
            "headline": (0, 0.3),
            "coverage": (0.7, 1),
            "share_kept": (0, 1),
            "difference_to_medic": (0, 1e-3),
        },
    ),
    # The second hospital is the sample's: photographs against drawings.
    f"{STAGE_2}/11_test_at_another_hospital": Run(checks={"headline": (-1, 1), "lost_without": (-1, 1)}),
    # Nobody has drawn the lesions of real photographs: no headline there.
    f"{STAGE_2}/12_explain_predictions": Run(
        {"IMAGES": 30}, {"largest_difference": (0, 1e-3), "alike_halves_low": (-1, 1), "alike_shuffled_high": (-1, 1)}
    ),
    f"{STAGE_3}/01_export_and_compress": Run(checks={"parity_batch_1": (0, 1e-4), "parity_batch_4": (0, 1e-4)}),
    f"{STAGE_3}/02_package_and_deploy": Run(checks={"golden_difference": (0, 0.02), "tampering_noticed": (1, 1)}),
    f"{STAGE_3}/03_call_the_service": Run(
        {"REQUESTS": 20}, {"as_demanded": (1, 1), "still_ready": (1, 1), "agreement": (0.95, 1)}
    ),
    f"{STAGE_3}/04_deploy_to_a_cloud": Run(
        {"IMAGES": 4},
        {"largest_difference": (0, 1e-4), "same_class": (0, 1), "class_changed_by_blue_for_red": (0, 1)},
    ),
    f"{STAGE_3}/05_watch_for_drift": Run(
        {"PATIENTS": 10, "WEEKS": 10}, {"difference_to_medic": (0, 1e-9), "false_alarms": (0, 1), "headline": (0, 1)}
    ),
}

# What else a notebook shows, as committed, and what it lies above: a scalar or a number. Headlines: test_run.py.
SHOWN = [
    (f"{STAGE_1}/04_check_and_correct_labels", "flipped_precision_lowest", "flipped_by_chance"),
    (f"{STAGE_1}/05_read_chest_xrays", "alike_the_image_before", "alike_another_patient"),
    (f"{STAGE_2}/06_find_chest_findings", "findings_above_chance", 9),
    (f"{STAGE_2}/06_find_chest_findings", "view_from_score_without_finding", 0.65),
    (f"{STAGE_2}/03_grade_retinopathy", "quadratic_weighted_kappa", 0.85),
    (f"{STAGE_2}/03_grade_retinopathy", "macro_f1", 0.7),
    (f"{STAGE_2}/03_grade_retinopathy", "lowest_sensitivity", 0.0),
    (f"{STAGE_2}/03_grade_retinopathy", "accuracy_imagenet", "accuracy_random"),
    (f"{STAGE_2}/04_compare_backbones_and_objectives", "kappa_labels_in_place", "kappa_labels_shifted"),
    (f"{STAGE_2}/08_classify_skin_lesions", "lost_low", 0.0),
    (f"{STAGE_2}/09_tune_hyperparameters", "gain_low", 0.0),
    (f"{STAGE_2}/10_trust_the_numbers", "retinopathy_log_loss_fall_low", 0.0),
    (f"{STAGE_2}/10_trust_the_numbers", "coverage", "coverage_binomial_low"),
    (f"{STAGE_2}/10_trust_the_numbers", "coverage_binomial_high", "coverage"),
    (f"{STAGE_2}/10_trust_the_numbers", "error_of_all", "error_kept"),
    (f"{STAGE_2}/10_trust_the_numbers", "net_benefit_gain_low", 0.0),
    (f"{STAGE_2}/11_test_at_another_hospital", "headline", 0.08),
    (f"{STAGE_2}/11_test_at_another_hospital", "lost_more_low", 0.0),
    (f"{STAGE_2}/12_explain_predictions", "alike_halves_low", "alike_shuffled_high"),
    (f"{STAGE_2}/12_explain_predictions", "sticker_low", "sticker_without_high"),
    (f"{STAGE_3}/05_watch_for_drift", "false_alarms_psi", "false_alarms"),
]


def products(folder: Path) -> dict[str, str]:
    """The environment that sends everything a notebook writes into ``folder``."""
    return {"MEDIC_OUTPUTS": str(folder), "MEDIC_IMAGES": str(folder / "image")}


def test_every_notebook_has_a_line_and_every_line_a_notebook():
    assert sorted(NOTEBOOKS) == sorted(FOUND)


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
    def test_it_runs_and_the_marked_cells_give_what_is_committed(self, name, outputs, record_property):
        # The subprocess is a pytest of its own; what xdist told this one is not for it.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--nbval-lax",
            "--nbval-current-env",
            "--nbval-cell-timeout=600",
        ]
        command += ["-p", "no:xdist", "-p", "no:cacheprovider", str(FOUND[name])]
        started = time.perf_counter()
        ended = subprocess.run(
            command, cwd=ROOT, env={**environment, **products(outputs)}, capture_output=True, text=True, check=False
        )
        record_property("notebook", f"{name}, sample")
        record_property("seconds", time.perf_counter() - started)
        assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-2000:]}"


@pytest.mark.notebooks
@pytest.mark.real_data
class TestOnRealPhotographs:
    @pytest.fixture(scope="class")
    def outputs(self, tmp_path_factory):
        return tmp_path_factory.mktemp("real") / "outputs"

    @pytest.mark.parametrize("name", FOUND)
    def test_it_runs_and_records_what_it_should(self, name, outputs, real_data, monkeypatch, record_property):
        run = NOTEBOOKS.get(name, Run())
        for variable, value in products(outputs).items():
            monkeypatch.setenv(variable, value)
        parameters = {"DATA": Path(os.path.relpath(real_data, ROOT)).as_posix(), **run.parameters}
        copy = outputs / "notebooks" / f"{name}.ipynb"
        started = time.perf_counter()
        failure = execute(FOUND[name], copy, parameters, timeout=600)
        record_property("notebook", f"{name}, real photographs")
        record_property("seconds", time.perf_counter() - started)
        assert failure is None, f"cell {failure.cell}\n{failure.source}\n{failure.error}"

        scalars = recorded(copy)
        for scalar, (low, high) in run.checks.items():
            assert scalar in scalars, f"{name} does not record {scalar}; it records {sorted(scalars)}"
            assert scalars[scalar] is not None, f"{scalar} is not finite"
            assert low <= scalars[scalar] <= high, f"{scalar} is {scalars[scalar]}, not in [{low}, {high}]"

    @pytest.fixture(scope="class")
    def own_folder(self, real_data, tmp_path_factory) -> Path:
        """36 real photographs, sorted into three folders whose names nobody has foreseen."""
        folder = tmp_path_factory.mktemp("own") / "my photographs"
        table = csv.reader((real_data / "skin_lesion" / "groundtruth.csv").open())
        by_verdict = {"benign": [], "malignant": []}
        for image, verdict in table:
            by_verdict[verdict].append(image)
        benign, malignant = by_verdict.values()
        for name, images in {"Flecken": benign[:12], "round spots": benign[40:52], "worrying": malignant[:12]}.items():
            (folder / name).mkdir(parents=True)
            for image in images:
                shutil.copy(real_data / "skin_lesion" / "images" / f"{image}.jpg", folder / name / f"{image}.JPG")
        return folder

    # They find the weights that the notebooks above have made.
    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            (f"{STAGE_1}/04_check_and_correct_labels", {}),
            (f"{STAGE_2}/08_classify_skin_lesions", {"NETWORKS": ["efficientnet_lite0"], "EPOCHS": 1}),
        ],
    )
    def test_a_folder_of_ones_own_goes_through_to_a_bundle(
        self, name, parameters, outputs, own_folder, monkeypatch, record_property
    ):
        for variable, value in products(outputs).items():
            monkeypatch.setenv(variable, value)
        copy = outputs / "own notebooks" / f"{name}.ipynb"
        started = time.perf_counter()
        failure = execute(FOUND[name], copy, {"DATA": os.path.relpath(own_folder, ROOT), **parameters}, timeout=600)
        record_property("notebook", f"{name}, own folder")
        record_property("seconds", time.perf_counter() - started)
        assert failure is None, f"cell {failure.cell}\n{failure.source}\n{failure.error}"
        if name.endswith("08_classify_skin_lesions"):
            (manifest,) = outputs.glob("*/quick/bundles/own/manifest.json")
            task = json.loads(manifest.read_text())["task"]
            assert task["classes"] == ["Flecken", "round spots", "worrying"]
