"""The model report says what decided the result, and nothing that did not."""

import dataclasses

import pytest

from medic.modeling.evaluate import evaluate
from medic.modeling.objectives import CrossEntropy
from medic.modeling.report import write_report
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE


@pytest.mark.parametrize(
    ("task", "objective", "operating_point"),
    [
        (CHEST_XRAY, "multilabel; loss weighted by prevalence", "the thresholds in the table by class on, chosen on"),
        (CHEST_XRAY_OR_NONE, "hierarchical\n", None),
        (CHEST_XRAY_BINARY, "cross_entropy; loss weighted against imbalance, by class: ", "a probability of 0."),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_it_says_how_the_loss_was_weighted_and_that_pixels_are_grey(
    task, objective, operating_point, chest_runs, tmp_path
):
    run = chest_runs[task.name]
    text = write_report(run, evaluate(run), tmp_path / "report.md").read_text()
    assert f"- objective: {objective}" in text
    assert "(crop: square, grey)" in text
    assert (f"- operating point: present from {operating_point}" in text) == (operating_point is not None)
    assert ("operating point" in text) == (operating_point is not None)


def test_it_does_not_call_photographs_in_colour_grey(run, tmp_path):
    text = write_report(run, evaluate(run), tmp_path / "report.md").read_text()
    assert "(crop: fundus)" in text


def test_smoothed_targets_are_named(run, tmp_path):
    settings = run.about["settings"]
    smoothed = CrossEntropy(label_smoothing=0.1).to_dict()
    other = run.about | {"settings": settings | {"model": settings["model"] | {"objective": smoothed}}}
    texts = [
        write_report(one, evaluate(run), tmp_path / "report.md").read_text()
        for one in (run, dataclasses.replace(run, about=other))
    ]
    said = "- objective: cross_entropy; targets smoothed by 0.1\n"
    assert [said in text for text in texts] == [False, True]
    assert "smoothed" not in texts[0]
