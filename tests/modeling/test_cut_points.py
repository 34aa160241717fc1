"""Cut points: the best ones there are for the images they are fitted on, and never worse than rounding."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from medic.data.images.preprocess import Preprocessing
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.cut_points import METRICS, decide, fit_cut_points, with_cut_points
from medic.modeling.metrics import confusion_matrix
from medic.modeling.objectives import Corn, CrossEntropy, Regression
from medic.task import RETINOPATHY, Task

STAGES = Task("stages", "ordinal", ("none", "some", "much"))


def figure(metric: str, grades: np.ndarray, labels: np.ndarray, cuts: tuple[float, ...]) -> float:
    """The metric when a grade belongs to the class whose number is that of the cuts below it."""
    decided = [sum(grade > cut for cut in cuts) for grade in grades]
    return float(METRICS[metric](confusion_matrix(labels, np.array(decided), len(cuts) + 1)))


def drawn(seed: int, classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return (labels * 0.7 + random.normal(0.3, 0.8, count)).clip(0, classes - 1).astype(np.float32), labels


@pytest.mark.parametrize("metric", METRICS)
def test_a_case_by_hand(metric):
    # All outputs lie low: rounding never says "much". Midway between 0.25 and 0.5, and 0.75 and 1.25, nobody errs.
    grades, labels = np.array([0.0, 0.25, 0.5, 0.75, 1.25, 1.25]), np.array([0, 0, 1, 1, 2, 2])
    assert fit_cut_points(grades, labels, STAGES, metric) == (0.375, 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_where_rounding_is_perfect_rounding_is_kept(metric):
    assert fit_cut_points(np.array([0.1, 0.9, 2.0]), np.array([0, 1, 2]), STAGES, metric) == (0.5, 1.5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(20))
def test_no_other_cuts_between_the_grades_are_better(metric, seed):
    grades, labels = drawn(seed, 3, count=4 + seed)  # with few images some class does not even occur
    fitted = figure(metric, grades, labels, fit_cut_points(grades, labels, STAGES, metric))
    levels = np.unique(np.concatenate([[0], grades, [2]]))
    between = (levels[1:] + levels[:-1]) / 2
    others = itertools.combinations_with_replacement(between, 2)
    assert fitted >= max(figure(metric, grades, labels, cuts) for cuts in others) - 1e-9


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(20))
def test_the_cuts_increase_lie_on_the_scale_and_are_never_worse_than_rounding(metric, seed):
    grades, labels = drawn(seed, 5, count=1 + 10 * seed)
    cuts = fit_cut_points(grades, labels, RETINOPATHY, metric)
    assert len(cuts) == 4
    assert 0 < cuts[0] < cuts[1] < cuts[2] < cuts[3] < 4
    rounded = figure(metric, grades, labels, (0.5, 1.5, 2.5, 3.5))
    assert figure(metric, grades, labels, cuts) >= rounded
    assert cuts == fit_cut_points(grades, labels, RETINOPATHY, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_many_thousand_grades_are_cut_in_seconds_and_much_better_than_by_rounding(metric):
    grades, labels = drawn(0, 5, count=8000)
    cuts = fit_cut_points(grades, labels, RETINOPATHY, metric)
    assert figure(metric, grades, labels, cuts) > figure(metric, grades, labels, (0.5, 1.5, 2.5, 3.5)) + 0.02


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [0.0, 1.3, 2.0])
def test_one_grade_for_all_images_is_no_obstacle(metric, value):
    cuts = fit_cut_points(np.full(4, value), np.array([0, 1, 1, 2]), STAGES, metric)
    assert 0 < cuts[0] < cuts[1] < 2


def test_neighbouring_float32_grades_are_told_apart():
    low = np.float32(1.7)
    grades, labels = np.array([low, np.nextafter(low, np.float32(2)), 2]), np.array([0, 1, 2])
    cuts = fit_cut_points(grades, labels, STAGES)
    assert decide(grades, cuts).tolist() == [0, 1, 2]
    probabilities, _ = Regression(cuts=cuts).decode(torch.tensor(grades, dtype=torch.float32)[:, None], STAGES)
    assert probabilities.argmax(dim=1).tolist() == [0, 1, 2]


def test_grades_off_the_scale_are_clipped():
    grades, labels = np.array([-3.0, 0.25, 0.5, 9.0]), np.array([0, 0, 1, 2])
    assert fit_cut_points(grades, labels, STAGES) == fit_cut_points(grades.clip(0, 2), labels, STAGES)


@pytest.mark.parametrize(
    ("grades", "labels", "task", "metric", "message"),
    [
        ([1.0], [1], Task("lesion", "multiclass", ("a", "b")), "macro_f1", "'lesion' is multiclass"),
        ([1.0], [1], STAGES, "accuracy", "there is: macro_f1, quadratic_weighted_kappa"),
        ([1.0, 2.0], [1], STAGES, "macro_f1", "one finite grade for every label"),
        ([], [], STAGES, "macro_f1", "one finite grade for every label"),
        ([float("nan")], [1], STAGES, "macro_f1", "one finite grade for every label"),
        ([1.0], [3], STAGES, "macro_f1", "a label lies outside the task 'stages'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(grades, labels, task, metric, message):
    with pytest.raises(MedicError, match=message):
        fit_cut_points(np.array(grades), np.array(labels), task, metric)


def model(objective) -> Classifier:
    torch.manual_seed(0)
    return Classifier(RETINOPATHY, "squeezenet1_1", objective, Preprocessing(size=64), image_size=64).eval()


def test_a_model_gets_the_cuts_as_a_copy_decides_by_them_and_keeps_them_on_disk(tmp_path):
    plain = model(Regression())
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    head = plain.backbone.classifier[1]  # made to answer near 2, where clipping hides nothing
    head.weight.data *= 0.1
    head.bias.data.fill_(2)
    grades = plain.predict_pixels(images).grade
    labels = np.argsort(np.argsort(grades)) // 2  # two images of each grade 0 to 3, in the order of the outputs
    cut = with_cut_points(plain, grades, labels, "macro_f1")
    assert plain.objective.cuts is None
    loaded = Classifier.load(cut.save(tmp_path / "cut"))
    for one in (cut, loaded):
        prediction = one.predict_pixels(images)
        assert np.array_equal(prediction.grade, grades)
        assert np.array_equal(prediction.decided, decide(grades, cut.objective.cuts))
        assert np.array_equal(prediction.decided, labels)


@pytest.mark.parametrize("objective", [CrossEntropy(), Corn()])
def test_with_cuts_other_objectives_decide_by_their_expected_grade(objective):
    raw = torch.tensor([[2.0, -1.0, 0.5, 0.0, -2.0], [-1.0, 0.3, 2.0, 1.0, 0.0]])[:, : objective.outputs(RETINOPATHY)]
    cuts = (0.3, 1.1, 2.9, 3.4)
    plain, grade = objective.decode(raw, RETINOPATHY)
    cut, same = replace(objective, cuts=cuts).decode(raw, RETINOPATHY)
    assert torch.equal(grade, same)
    assert np.array_equal(cut.argmax(dim=1).numpy(), decide(grade.numpy(), cuts))
    assert torch.allclose(cut.sum(dim=1), torch.ones(2))
    assert not torch.allclose(cut, plain)


def test_cuts_are_for_ordered_classes_alone():
    with pytest.raises(MedicError, match="cross_entropy with cut points needs an ordinal task"):
        CrossEntropy(cuts=(0.5,)).outputs(Task("two", "multiclass", ("a", "b")))
