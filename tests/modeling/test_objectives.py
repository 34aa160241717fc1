"""What raw outputs mean: losses against hand-computed cases, and the decoding that every export carries."""

import json
import math

import numpy as np
import pytest
import torch

from medic.errors import MedicError
from medic.modeling.objectives import CrossEntropy, Regression, objective_from_dict
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


@pytest.mark.parametrize("objective", [CrossEntropy(), Regression()])
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


def test_the_number_of_outputs_follows_from_task_and_objective():
    assert CrossEntropy().outputs(RETINOPATHY) == 5
    assert Regression().outputs(RETINOPATHY) == 1
    with pytest.raises(MedicError, match="needs an ordinal task, 'lesion' is multiclass"):
        Regression().outputs(LESION)


@pytest.mark.parametrize(
    "objective", [CrossEntropy(), CrossEntropy((1.0, 2.0, 3.0, 4.0, 5.0), 0.1), Regression(beta=0.5)]
)
def test_an_objective_comes_back_from_json_as_it_was(objective):
    values = objective.to_dict()
    through_json = json.loads(json.dumps(values))
    assert through_json == values
    assert objective_from_dict(through_json) == objective


@pytest.mark.parametrize("values", [{"name": "hinge"}, {}])
def test_an_unknown_objective_is_refused_with_those_there_are(values):
    with pytest.raises(MedicError, match="there is: cross_entropy, regression"):
        objective_from_dict(values)
