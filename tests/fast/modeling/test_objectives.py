"""What raw outputs mean: losses against hand-computed cases, and the decoding that every export carries."""

import json
import math

import numpy as np
import pytest
import torch

from medic.errors import MedicError
from medic.modeling.objectives import Corn, CrossEntropy, Regression, objective_from_dict
from medic.task import RETINOPATHY, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))


def test_cross_entropy_is_the_negative_logarithm_of_the_truths_probability():
    raw = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    loss = CrossEntropy().loss(raw, torch.tensor([1, 0]))
    assert float(loss) == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)


def test_class_weights_make_a_weighted_mean():
    raw = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    loss = CrossEntropy(class_weights=(1.0, 3.0)).loss(raw, torch.tensor([1, 0]))
    assert float(loss) == pytest.approx(-(3 * math.log(0.8) + math.log(0.5)) / 4)


def test_label_smoothing_spreads_the_target():
    raw = torch.log(torch.tensor([[0.2, 0.8]]))
    loss = CrossEntropy(label_smoothing=0.1).loss(raw, torch.tensor([1]))
    assert float(loss) == pytest.approx(-(0.95 * math.log(0.8) + 0.05 * math.log(0.2)))


def test_softmax_decodes_to_probabilities_and_the_expected_grade():
    probabilities, grade = CrossEntropy().decode(torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4, 1e-9]])), RETINOPATHY)
    assert probabilities[0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0], abs=1e-6)
    assert float(grade) == pytest.approx(0.2 + 0.6 + 1.2, abs=1e-5)


def test_tasks_without_order_decode_to_probabilities_alone():
    outputs = CrossEntropy().decode(torch.zeros(3, 2), LESION)
    assert len(outputs) == 1
    assert outputs[0].tolist() == [[0.5, 0.5]] * 3


CUTS = (0.25, 1.0, 2.75, 3.5)


@pytest.mark.parametrize("objective", [CrossEntropy(), Regression(), Regression(cuts=CUTS), Corn()])
def test_probabilities_sum_to_one_and_grades_stay_on_the_scale(objective):
    raw = torch.randn(500, objective.outputs(RETINOPATHY), generator=torch.Generator().manual_seed(0)) * 10
    probabilities, grade = objective.decode(raw, RETINOPATHY)
    assert probabilities.shape == (500, 5)
    assert probabilities.dtype == grade.dtype == torch.float32
    assert np.allclose(probabilities.sum(dim=1), 1, atol=1e-5)
    assert probabilities.min() >= 0
    assert 0 <= grade.min() <= grade.max() <= 4


def test_half_precision_outputs_are_decoded_in_full_precision():
    probabilities, grade = CrossEntropy().decode(torch.randn(4, 5).to(torch.bfloat16), RETINOPATHY)
    assert probabilities.dtype == grade.dtype == torch.float32


def test_regression_costs_by_the_distance_square_when_near_and_absolute_when_far():
    loss = Regression(beta=1.0).loss(torch.tensor([[1.5], [4.0]]), torch.tensor([1, 1]))
    assert float(loss) == pytest.approx((0.5 * 0.5**2 + (3 - 0.5)) / 2)


@pytest.mark.parametrize(
    ("raw", "grade", "decided"),
    [(-3.0, 0.0, 0), (0.4, 0.4, 0), (0.6, 0.6, 1), (2.5, 2.5, 2), (2.51, 2.51, 3), (3.49, 3.49, 3), (9.0, 4.0, 4)],
)
def test_regression_is_clipped_to_the_scale_and_rounded(raw, grade, decided):
    probabilities, continuous = Regression().decode(torch.tensor([[raw]]), RETINOPATHY)
    assert float(continuous) == pytest.approx(grade)
    assert int(probabilities.argmax()) == decided


def test_two_neighbouring_grades_share_a_regressed_probability():
    probabilities, _ = Regression().decode(torch.tensor([[1.25]]), RETINOPATHY)
    assert probabilities[0].tolist() == pytest.approx([0, 0.75, 0.25, 0, 0])


def by_cuts(grades: torch.Tensor, cuts: tuple[float, ...]) -> list[int]:
    return [sum(grade > cut for cut in np.float32(cuts)) for grade in grades.clamp(0, len(cuts)).numpy()]


@pytest.mark.parametrize(
    ("raw", "shares"),
    [
        (0.0, [1, 0, 0, 0, 0]),
        (0.125, [0.75, 0.25, 0, 0, 0]),  # half way to the first cut: 0.25 on the mapped scale
        (0.625, [0, 1, 0, 0, 0]),  # in the middle between two cuts
        (1.4375, [0, 0.25, 0.75, 0, 0]),  # a quarter of the way from 1.0 to 2.75: 1.75
        (3.75, [0, 0, 0, 0.25, 0.75]),  # half way from the last cut to the top: 3.75
        (9.0, [0, 0, 0, 0, 1]),
    ],
)
def test_with_cuts_the_shares_are_those_of_the_mapped_output_and_the_grade_stays_as_it_is(raw, shares):
    probabilities, grade = Regression(cuts=CUTS).decode(torch.tensor([[raw]]), RETINOPATHY)
    assert probabilities[0].tolist() == pytest.approx(shares, abs=2e-6)
    assert float(grade) == min(raw, 4)


@pytest.mark.parametrize(
    "cuts",
    [
        CUTS,
        (0.5, 1.5, 2.5, 3.5),
        (1.1, 1.1, 1.1, 1.2),
        (2.0, 2.0, 2.0, 2.0),
        (0.0, 1.5, 2.5, 4.0),
        (0.0, 0.0, 4.0, 4.0),
        (1e-9, 1.0, 1.0000001, 3.9999998),
    ],
)
def test_the_decision_is_the_one_by_cuts_also_on_a_cut_and_next_to_it(cuts):
    at = torch.tensor(cuts)
    beside = [torch.nextafter(at, at.new_tensor(end)) for end in (-9.0, 9.0)]
    many = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) * 6 - 1
    grades = torch.cat([at, *beside, torch.tensor([-1.0, 0.0, 4.0, 5.0]), many])
    probabilities, _ = Regression(cuts=cuts).decode(grades[:, None], RETINOPATHY)
    assert probabilities.argmax(dim=1).tolist() == by_cuts(grades, cuts)
    assert probabilities.numpy().argmax(axis=1).tolist() == by_cuts(grades, cuts)
    assert np.allclose(probabilities.sum(dim=1), 1, atol=1e-5)


def test_cuts_of_rounding_change_nothing():
    raw = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)) * 6 - 1
    plain, cut = (Regression(cuts=cuts).decode(raw, RETINOPATHY)[0] for cuts in (None, (0.5, 1.5, 2.5, 3.5)))
    assert torch.allclose(plain, cut, atol=2e-6)


@pytest.mark.parametrize(
    "cuts", [(0.5, 2.5, 1.5, 3.5), (-0.1, 1, 2, 3), (1, 2, 3, 4.1), (1, float("nan"), 2, 3), (3.0,)]
)
def test_cuts_that_do_not_divide_the_scale_are_refused(cuts):
    with pytest.raises(MedicError, match="do not divide the grades"):
        Regression(cuts=cuts)


def test_cuts_for_another_number_of_grades_are_refused():
    with pytest.raises(MedicError, match="has 5 grades and needs 4 cuts, got 2"):
        Regression(cuts=(0.5, 1.5)).outputs(RETINOPATHY)


STAGES = Task("stages", "ordinal", ("none", "some", "much"))


def logits(*probabilities: float) -> list[float]:
    return [math.log(p / (1 - p)) for p in probabilities]


def test_corn_asks_each_question_only_of_the_images_it_applies_to():
    raw = torch.tensor([logits(0.2, 0.3), logits(0.6, 0.1), logits(0.9, 0.7)])
    loss = Corn().loss(raw, torch.tensor([0, 1, 2]))
    first = math.log(1 - 0.2) + math.log(0.6) + math.log(0.9)  # above 0? all three images
    second = math.log(1 - 0.1) + math.log(0.7)  # above 1? the two that are above 0
    assert float(loss) == pytest.approx(-(first + second) / 5)


def test_corn_does_without_a_question_that_applies_to_no_image_of_the_batch():
    raw = torch.tensor([logits(0.2, 0.999), logits(0.4, 0.001)], requires_grad=True)
    loss = Corn().loss(raw, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert raw.grad[:, 1].tolist() == [0, 0]
    assert (raw.grad[:, 0] > 0).all()


def test_corn_multiplies_the_answers_and_takes_differences():
    probabilities, grade = Corn().decode(torch.tensor([logits(0.8, 0.25)]), STAGES)
    assert probabilities[0].tolist() == pytest.approx([0.2, 0.8 - 0.2, 0.2])
    assert float(grade) == pytest.approx(0.8 + 0.2)
    assert float(grade) == pytest.approx(float((probabilities * torch.arange(3)).sum()))


def test_the_number_of_outputs_follows_from_task_and_objective():
    assert CrossEntropy().outputs(RETINOPATHY) == 5
    assert Regression().outputs(RETINOPATHY) == 1
    assert Corn().outputs(RETINOPATHY) == 4
    for objective in (Regression(), Corn()):
        with pytest.raises(MedicError, match=f"{objective.name} needs an ordinal task, 'lesion' is multiclass"):
            objective.outputs(LESION)


@pytest.mark.parametrize(
    "objective",
    [CrossEntropy(), CrossEntropy((1.0, 2.0, 3.0, 4.0, 5.0), 0.1), Regression(beta=0.5), Regression(cuts=CUTS), Corn()],
)
def test_an_objective_comes_back_from_json_as_it_was(objective):
    values = objective.to_dict()
    through_json = json.loads(json.dumps(values))
    assert through_json == values
    assert objective_from_dict(through_json) == objective


@pytest.mark.parametrize("values", [{"name": "hinge"}, {}])
def test_an_unknown_objective_is_refused_with_those_there_are(values):
    with pytest.raises(MedicError, match="there is: cross_entropy, regression, corn"):
        objective_from_dict(values)
