"""What `medic drift` says of a service's answers: silent while nothing changes, and soon when something does."""

import datetime

import numpy as np
import pandas as pd
import pytest

from medic.cli import main
from medic.deployment.bundle.pipeline import partition
from medic.deployment.counts import Counts, measure, read_counts
from medic.deployment.drift import PSI, Reference, chi_square, class_shares, compare, holm, images_needed, psi
from medic.errors import MedicError
from medic.sample.layout import jpeg
from medic.task import RETINOPATHY, Prediction, Task

MIX = (0.48, 0.14, 0.22, 0.08, 0.08)


def answers(rng, patients, *, brighter=0.0, mix=MIX, side=288.0):
    """Two answered images of each of some patients, alike in looks and grade: measures, prediction, truth, patients."""
    whose = np.repeat(np.arange(patients), 2)

    def alike():
        return np.sqrt(0.5) * (rng.normal(size=patients)[whose] + rng.normal(size=2 * patients))

    truth = rng.choice(5, patients, p=mix)[whose]
    decided = np.clip(truth + rng.choice([-1, 0, 1], 2 * patients, p=[0.1, 0.8, 0.1]), 0, 4)
    prediction = Prediction(RETINOPATHY, np.eye(5, dtype=np.float32)[decided], decided.astype(np.float32))
    size = np.full(2 * patients, side)
    measures = {"brightness": 100 + 20 * (alike() + brighter), "distance": np.exp(alike()), "size": size}
    return measures, prediction, truth, whose


def reference(rng, patients=150, **changes):
    return Reference.fit(*answers(rng, patients, **changes), "test")


def week(rng, reference, images, days=7, **changes):
    """Hours of traffic with so many images a day, all changed in the same way."""
    return {f"2026-11-2{day}T10": reference.count(*answers(rng, images // 2, **changes)[:2]) for day in range(days)}


def test_of_undisturbed_weeks_one_in_twenty_at_most_is_a_false_alarm():
    rng, weeks = np.random.default_rng(0), 25
    alarms = 0
    for images in (20, 60, 200):
        for _ in range(weeks):
            fitted = reference(rng)
            alarms += bool(compare(fitted, week(rng, fitted, images)).since)
    # If 5 % of weeks were false alarms, more than 8 of 75 would come up once in 100 runs.
    assert alarms <= 8


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"brighter": 1.5}, {"brightness"}),
        ({"side": 320.0}, {"size"}),
        ({"mix": (0.1, 0.1, 0.2, 0.3, 0.3)}, {"decided"}),
    ],
)
def test_what_changed_is_named_with_the_day_on_which_it_changed(changes, moved):
    rng = np.random.default_rng(1)
    fitted = reference(rng)
    hours = week(rng, fitted, 60, days=3)
    hours |= {hour.replace("-2", "-3"): counts for hour, counts in week(rng, fitted, 60, days=1, **changes).items()}
    found = compare(fitted, hours)
    assert found.since == dict.fromkeys(moved, "2026-11-30")
    assert all(f"{name} moved: first found 2026-11-30" in str(found) for name in moved)
    assert ("these shares may be wrong" in str(found)) == (moved != {"decided"})


def test_a_new_camera_is_noticed_within_forty_images():
    rng = np.random.default_rng(2)
    noticed = []
    for _ in range(40):
        fitted = reference(rng)
        noticed.append("brightness" in compare(fitted, week(rng, fitted, 40, days=1, brighter=1.5)).since)
    assert np.mean(noticed) >= 0.9


def test_as_many_images_as_are_said_to_be_needed_find_a_large_shift_four_times_in_five():
    rng, level, shares = np.random.default_rng(3), 0.01, np.full(10, 0.1)
    shifted = shares * np.linspace(1.75, 0.25, 10)
    change = shifted / shifted.sum() - shares
    shifted = shares + change * np.sqrt(PSI / ((shifted - shares) @ np.log(shifted / shares)))
    fitted = reference(rng, 1000)
    fitted.design["brightness"] = 1.0
    needed = int(images_needed(fitted, "brightness", level))
    pairs = [(rng.multinomial(2000, shares), rng.multinomial(needed, shifted)) for _ in range(400)]
    assert 0.7 <= np.mean([chi_square(*pair) <= level for pair in pairs]) <= 0.9
    assert images_needed(reference(rng, 20), "brightness", level) == np.inf


def test_too_few_requests_are_said_to_be_too_few():
    rng = np.random.default_rng(4)
    fitted = reference(rng)
    found = compare(fitted, week(rng, fitted, 20, days=2))
    assert str(found).startswith("nothing moved; too few images yet to be sure of brightness, distance, size, decided")
    assert found.looks.loc[found.looks["property"] == "size", "images"].tolist() == [20, 20, 40]
    with pytest.raises(MedicError, match="no answered image has been counted"):
        compare(fitted, {})


def test_prevalence_is_estimated_where_only_the_mix_of_cases_changed():
    rng, covered = np.random.default_rng(5), []
    for _ in range(40):
        mix = rng.dirichlet(np.full(5, 3.0))
        fitted = reference(rng, 300)
        measures, prediction, truth, _ = answers(rng, 300, mix=mix)
        shares = class_shares(fitted, fitted.count(measures, prediction))
        true = np.bincount(truth, minlength=5) / len(truth)
        covered.append(((shares["low"] <= true) & (true <= shares["high"])).to_numpy())
        assert shares["now"].sum() == pytest.approx(1)
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("decided", [1, 4])
def test_six_images_that_are_alike_prove_no_mix_of_cases(decided):
    fitted = reference(np.random.default_rng(5), 300, mix=(0.4, 0.3, 0.3, 0, 0))  # nothing is decided as 4
    shares = class_shares(fitted, {"decided": 6 * np.eye(5, dtype=int)[decided]})
    assert (shares["high"] > 0.1)[:3].all()
    assert shares["now"].sum() == pytest.approx(1)


def test_each_of_several_findings_is_watched_by_itself():
    rng, task = np.random.default_rng(6), Task("chest", "multilabel", ("Edema", "Mass"))

    def findings(count, rates):
        truth = (rng.random((count, 2)) < rates).astype(int)
        said = np.where(rng.random((count, 2)) < 0.9, truth, 1 - truth)
        return {}, Prediction(task, said.astype(np.float32)), truth, np.arange(count)

    fitted = Reference.fit(*findings(500, (0.2, 0.3)), "test")
    found = compare(fitted, {"2026-11-26T08": fitted.count(*findings(500, (0.2, 0.6))[:2])})
    assert found.since == {"decided Mass": "2026-11-26"}
    assert found.shares.loc["Mass", "low"] < 0.6 < found.shares.loc["Mass", "high"]
    assert found.shares.loc["Edema", "now"] == pytest.approx(0.2, abs=0.07)


def test_psi_and_holm_are_those_of_the_books():
    one, other = (np.array([40, 30, 30]) + 0.5) / 101.5, (np.array([20, 30, 50]) + 0.5) / 101.5
    assert psi([40, 30, 30], [20, 30, 50]) == pytest.approx(((other - one) * np.log(other / one)).sum())
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_an_image_is_measured_as_a_service_sees_it():
    pixels = np.full((1, 32, 32, 3), 90, np.uint8)
    said = Prediction(RETINOPATHY, np.eye(5, dtype=np.float32)[:1], np.zeros(1, np.float32))
    found = measure([jpeg(np.zeros((48, 64, 3), np.uint8), 90)], pixels, said)
    assert {name: values.tolist() for name, values in found.items()} == {
        "brightness": [90.0],
        "sharpness": [0.0],
        "size": [64.0],
    }


def test_the_processes_of_a_service_are_added_up_and_an_ended_one_goes_on(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(7)
    fitted, hour = reference(rng), f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H}"
    for process in (11, 12, 11):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        counts = Counts(tmp_path, fitted, "abc")
        counts.add(*answers(rng, 10)[:2])
        counts.close()
    files = sorted(tmp_path.glob("drift-abc-*.jsonl"))
    found, hours = read_counts(files)
    assert [file.name for file in files] == ["drift-abc-11.jsonl", "drift-abc-12.jsonl"]
    assert found == fitted
    assert sum(counts["decided"].sum() for counts in hours.values()) == 60
    assert hour in hours
    assert all(file.stat().st_size < 5000 for file in files)
    monkeypatch.setattr("sys.argv", ["medic", "drift", *map(str, files)])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "nothing moved" in capsys.readouterr().out


def test_counts_that_do_not_belong_together_or_cannot_be_written_are_refused(tmp_path, unwritable):
    rng, files = np.random.default_rng(8), []
    with pytest.raises(MedicError, match="cannot write"):
        Counts(unwritable, reference(rng), "abc")
    for process in (1, 2):
        counts = Counts(tmp_path / str(process), reference(rng), "abc")
        counts.close()
        files += (tmp_path / str(process)).iterdir()
    with pytest.raises(MedicError, match="another model"):
        read_counts(files)
    sound = files[0].read_text()
    for text in ("no counts\n", '{"hour": 5, "counts": {}}', '{"hour": "2026-11-26T08", "counts": {"decided": [1]}}'):
        files[0].write_text(text if text.startswith("no") else f"{sound}{text}\n")
        with pytest.raises(MedicError, match="holds no counts"):
            read_counts(files[:1])
    with pytest.raises(MedicError, match="no counts are there"):
        read_counts([])


@pytest.mark.parametrize(
    ("patients", "said"),
    [("ab", "no patient is in two splits."), (("1.png", "2.png"), "no patient is known: each image counts as one.")],
)
def test_a_bundle_says_how_patients_were_kept_apart(patients, said):
    records = pd.DataFrame({"image": ["1.png", "2.png"], "patient": list(patients), "split": ["train", "test"]})
    assert partition(records, synthetic=False) == f"1 images, for training, 0 for validation and 1 for testing; {said}"
