"""What raw outputs mean: losses against hand-computed cases, and the decoding that every export carries."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from medic.errors import MedicError
from medic.modeling.objectives import (
    Corn,
    CrossEntropy,
    MultiLabel,
    Regression,
    objective_from_dict,
    weighted,
)
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, RETINOPATHY, Task

LESION = Task("lesion", "multiclass", ("benign", "malignant"))
STAGES = Task("stages", "ordinal", ("none", "some", "much"))
EGG = Task("egg", "multilabel", ("Crack", "Dent", "Spot", "Whole"))


def logits(*probabilities: float) -> list[float]:
    return [math.log(p / (1 - p)) for p in probabilities]


def falling(grade: float) -> list[float]:
    """The normal distribution on the codes of five grades."""
    powers = [math.exp(-((grade - code) ** 2) / 2) for code in range(5)]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(
    ("objective", "raw", "labels", "product", "count"),
    [
        (CrossEntropy(), np.log([[0.2, 0.8], [0.5, 0.5]]), [1, 0], 0.8 * 0.5, 2),
        (CrossEntropy(class_weights=(1.0, 3.0)), np.log([[0.2, 0.8], [0.5, 0.5]]), [1, 0], 0.8**3 * 0.5, 4),
        (CrossEntropy(label_smoothing=0.1), np.log([[0.2, 0.8]]), [1], 0.8**0.95 * 0.2**0.05, 1),
        (MultiLabel(), [logits(0.9, 0.2), logits(0.5, 0.6)], [[1, 0], [0, 1]], 0.9 * 0.8 * 0.5 * 0.6, 4),
        (MultiLabel(None, 0.1), [logits(0.9, 0.8)], [[1, 1]], 0.9**0.95 * 0.1**0.05 * 0.8**0.95 * 0.2**0.05, 2),
        (MultiLabel((0.2, 0.0)), [logits(0.5, 0.5)] * 2, [[1, 0], [0, 0]], 0.5**0.8 * 0.5**0.2 * 0.5 * 0.5, 4),
        # "above 0?" is asked of all three images, "above 1?" of the two that are above 0
        (Corn(), [logits(0.2, 0.3), logits(0.6, 0.1), logits(0.9, 0.7)], [0, 1, 2], 0.8 * 0.6 * 0.9 * 0.9 * 0.7, 5),
        (Corn(), [logits(0.2, 0.999), logits(0.4, 0.001)], [0, 0], 0.8 * 0.6, 2),  # a question put to no image
    ],
)
def test_a_loss_is_the_mean_negative_logarithm_of_the_probabilities_of_the_truth(
    objective, raw, labels, product, count
):
    loss = objective.loss(torch.tensor(np.array(raw), dtype=torch.float32), torch.tensor(labels))
    assert float(loss) == pytest.approx(-math.log(product) / count, rel=1e-5)


def test_regression_costs_by_the_distance_square_when_near_and_absolute_when_far():
    loss = Regression(beta=1.0).loss(torch.tensor([[1.5], [4.0]]), torch.tensor([1, 1]))
    assert float(loss) == pytest.approx((0.5 * 0.5**2 + (3 - 0.5)) / 2)


def test_with_its_prevalence_both_sides_of_a_class_weigh_the_same_in_sum():
    labels = torch.tensor([[1, 1], [0, 1], [0, 1], [0, 0], [0, 1]])
    raw = torch.zeros(5, 2, requires_grad=True)
    MultiLabel(prevalence=(0.2, 0.8)).loss(raw, labels).backward()
    assert raw.grad.sum(dim=0).tolist() == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("objective", "task", "raw", "probabilities", "grade"),
    [
        (CrossEntropy(), RETINOPATHY, np.log([0.1, 0.2, 0.3, 0.4, 1e-9]), [0.1, 0.2, 0.3, 0.4, 0], 2.0),
        (CrossEntropy(), LESION, [0.0, 0.0], [0.5, 0.5], None),
        (Corn(), STAGES, logits(0.8, 0.25), [0.2, 0.6, 0.2], 1.0),
        (MultiLabel(), EGG, [*logits(0.9, 0.8), 0.0, -100.0], [0.9, 0.8, 0.5, 0.0], None),
        (Regression(), RETINOPATHY, [1.25], falling(1.25), 1.25),
        (Regression(), RETINOPATHY, [-3.0], falling(0), 0.0),
        (Regression(), RETINOPATHY, [9.0], falling(4), 4.0),
    ],
)
def test_outputs_are_decoded(objective, task, raw, probabilities, grade):
    raw = torch.tensor(np.array([raw]), dtype=torch.float32)
    assert raw.shape[1] == objective.outputs(task)
    decoded, *grades = objective.decode(raw.to(torch.float64), task)  # whatever the precision, float32 comes out
    assert decoded.dtype == torch.float32
    assert decoded[0].tolist() == pytest.approx(probabilities, abs=2e-6)
    assert [float(one) for one in grades] == pytest.approx([] if grade is None else [grade], abs=1e-5)


@pytest.mark.parametrize("grade", [-1, 0, 0.49, 0.5, 0.51, 1.5, 2, 3.499, 3.5, 3.501, 5])
@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
def test_a_regression_decides_for_the_nearest_grade_whatever_its_scale(grade, scale):
    probabilities, _ = Regression().decode(torch.tensor([[grade]]), RETINOPATHY, scale)
    assert int(probabilities.argmax()) == min(max(math.ceil(grade - 0.5), 0), 4)


@pytest.mark.parametrize("objective", [CrossEntropy(), Corn(), Regression()], ids=lambda one: one.name)
def test_probabilities_of_a_grade_are_the_networks_own_and_scale_with_its_outputs(objective):
    raw = torch.randn(50, objective.outputs(RETINOPATHY), generator=torch.Generator().manual_seed(0))
    raw = raw + 2 if isinstance(objective, Regression) else raw
    own, sharper = (objective.decode(raw, RETINOPATHY, scale) for scale in (1.0, 2.0))
    for probabilities, grade in (own, sharper):
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(50), atol=1e-6)
        assert (probabilities > 0).all(), "no grade is ruled out"
        if not isinstance(objective, Regression):
            assert torch.allclose(grade, probabilities @ torch.arange(5.0), atol=1e-5)
    if not isinstance(objective, Regression):
        assert torch.allclose(objective.decode(2 * raw, RETINOPATHY)[0], sharper[0])
    assert sharper[0].amax(dim=1).mean() > own[0].amax(dim=1).mean()


def test_weights_are_counted_on_the_training_images_alone():
    records = pd.DataFrame(
        {"split": ["train", "train", "train", "train", "test"], "label": [1, 1, 0, 1, 1]}
        | {"Crack": [1, 0, 0, 0, 1], "Dent": [1, 1, 0, 1, 1], "Spot": 0, "Whole": [0, 0, 1, 0, 0]}
    )
    assert weighted(MultiLabel(label_smoothing=0.1), records, EGG) == MultiLabel((0.25, 0.75, 0.0, 0.25), 0.1)
    assert weighted(CrossEntropy(), records, CHEST_XRAY_BINARY).class_weights == pytest.approx((2.0, 2 / 3))
    with pytest.raises(MedicError, match="the objective corn has no class weights"):
        weighted(Corn(), records, EGG)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Corn().outputs(LESION),
            "corn needs a task that is ordinal, 'lesion' is multiclass; use cross_entropy",
        ),
        (lambda: CrossEntropy().outputs(CHEST_XRAY), "'chest_xray' is multilabel; use multilabel"),
        (lambda: objective_from_dict({"name": "hinge"}), "there is: cross_entropy, regression, corn"),
        (lambda: objective_from_dict({}), "there is: cross_entropy, regression, corn"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(MedicError, match=message):
        make()
