"""Findings that are each present or not: losses against hand-computed cases, and a tree whose probabilities agree."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from medic.data.taxonomy import Taxonomy, read_taxonomy
from medic.errors import MedicError
from medic.modeling.objectives import (
    Corn,
    CrossEntropy,
    Hierarchical,
    MultiLabel,
    default_objective,
    objective_from_dict,
    objective_named,
    weighted,
)
from medic.task import (
    CHEST_XRAY,
    CHEST_XRAY_BINARY,
    CHEST_XRAY_OR_NONE,
    FINDINGS,
    NO_FINDING,
    RETINOPATHY,
    Task,
)

EGG = Task("egg", "multilabel", ("Crack", "Dent", "Spot", "Whole"))
TREE = Taxonomy((("Any", ""), ("Shell", "Any"), ("Spot", "Any"), ("Crack", "Shell"), ("Dent", "Shell")), "Whole")


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_the_loss_is_the_mean_over_images_and_classes():
    raw = torch.tensor([[logit(0.9), logit(0.2)], [logit(0.5), logit(0.6)]])
    loss = MultiLabel().loss(raw, torch.tensor([[1, 0], [0, 1]]))
    assert float(loss) == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.5) + math.log(0.6)) / 4)


def test_smoothing_draws_both_targets_towards_a_half():
    raw = torch.tensor([[logit(0.9), logit(0.2)]])
    loss = MultiLabel(label_smoothing=0.1).loss(raw, torch.tensor([[1, 0]]))
    first = 0.95 * math.log(0.9) + 0.05 * math.log(0.1)
    second = 0.05 * math.log(0.2) + 0.95 * math.log(0.8)
    assert float(loss) == pytest.approx(-(first + second) / 2)


def test_with_its_prevalence_both_sides_of_a_class_weigh_the_same_in_sum():
    labels = torch.tensor([[1, 1], [0, 1], [0, 1], [0, 0], [0, 1]])
    objective = MultiLabel(prevalence=(0.2, 0.8))
    raw = torch.zeros(5, 2, requires_grad=True)
    loss = objective.loss(raw, labels)
    assert float(loss.detach()) == pytest.approx(math.log(2) * 2 * 0.2 * 0.8)  # the mean weight is 2 p (1 - p)
    loss.backward()
    for column in range(2):
        pull = raw.grad[:, column]
        assert float(pull.sum()) == pytest.approx(0, abs=1e-7)
        assert float(pull[labels[:, column] == 1].sum()) < 0


@pytest.mark.parametrize(("prevalence", "label"), [(0.0, 0), (1.0, 1)])
def test_a_class_that_no_image_or_every_image_has_is_learned_too(prevalence, label):
    labels = torch.full((3, 1), label)
    loss = MultiLabel(prevalence=(prevalence,)).loss(torch.zeros(3, 1), labels)
    assert float(loss) == pytest.approx(math.log(2))


def test_prevalence_is_counted_on_the_training_images_alone():
    records = pd.DataFrame(
        {"split": ["train", "train", "train", "train", "test"], "label": [1, 1, 0, 1, 1]}
        | {"Crack": [1, 0, 0, 0, 1], "Dent": [1, 1, 0, 1, 1], "Spot": 0, "Whole": [0, 0, 1, 0, 0]}
    )
    assert weighted(MultiLabel(label_smoothing=0.1), records, EGG) == MultiLabel((0.25, 0.75, 0.0, 0.25), 0.1)
    binary = weighted(CrossEntropy(), records, CHEST_XRAY_BINARY)
    assert binary.class_weights == pytest.approx((2.0, 2 / 3))
    with pytest.raises(MedicError, match="the objective hierarchical has no class weights"):
        weighted(Hierarchical.over(TREE, EGG), records, EGG)


def test_each_class_is_decoded_by_itself():
    (probabilities,) = MultiLabel().decode(torch.tensor([[logit(0.9), logit(0.8), 0.0, -100.0]]), EGG)
    assert probabilities[0].tolist() == pytest.approx([0.9, 0.8, 0.5, 0.0])


@pytest.mark.parametrize("values", [{"prevalence": (0.5, 1.2)}, {"prevalence": (-0.1,)}, {"label_smoothing": 1.5}])
def test_what_is_no_share_is_refused(values):
    with pytest.raises(MedicError, match="are shares; each is 0 to 1"):
        MultiLabel(**values)


def test_objectives_and_tasks_of_different_kinds_are_refused():
    with pytest.raises(MedicError, match="got 2 prevalences; give one a class"):
        MultiLabel(prevalence=(0.5, 0.5)).outputs(EGG)
    for objective in (MultiLabel(), Hierarchical.over(TREE, EGG)):
        with pytest.raises(MedicError, match="needs a multilabel task, 'retinopathy' is ordinal; use cross_entropy"):
            objective.outputs(RETINOPATHY)
    with pytest.raises(MedicError, match="chooses one class an image, 'chest_xray' has several; use multilabel"):
        CrossEntropy().outputs(CHEST_XRAY)
    with pytest.raises(MedicError, match="use the multilabel objective"):
        Corn().outputs(CHEST_XRAY)
    assert default_objective(CHEST_XRAY) == MultiLabel()
    assert default_objective(CHEST_XRAY_BINARY) == CrossEntropy()


@pytest.fixture
def chest() -> tuple[Hierarchical, torch.Tensor]:
    objective = objective_named("hierarchical", CHEST_XRAY_OR_NONE)
    return objective, 3 * torch.randn(50, objective.outputs(CHEST_XRAY_OR_NONE), generator=torch.Generator())


def test_no_child_is_more_probable_than_its_parent(chest):
    objective, raw = chest
    nodes = objective.nodes(raw)
    for place, parent in enumerate(objective.tree.parents):
        if parent >= 0:
            assert (nodes[:, place] <= nodes[:, parent]).all()
    conditional = torch.sigmoid(raw)
    mass, parent = objective.tree.nodes.index("Mass"), objective.tree.nodes.index("Lesion")
    assert torch.allclose(nodes[:, mass], conditional[:, 0] * conditional[:, parent] * conditional[:, mass])


def test_the_class_for_none_of_them_completes_the_root_to_one(chest):
    objective, raw = chest
    (probabilities,) = objective.decode(raw, CHEST_XRAY_OR_NONE)
    assert probabilities.shape == (50, 15)
    none = probabilities[:, CHEST_XRAY_OR_NONE.classes.index(NO_FINDING)]
    assert torch.allclose(none + objective.nodes(raw)[:, 0], torch.ones(50), atol=1e-6)
    places = [objective.tree.nodes.index(name) for name in FINDINGS]
    assert torch.equal(probabilities[:, :14], objective.nodes(raw)[:, places])


def test_a_node_is_asked_only_of_images_that_have_its_parent():
    objective = Hierarchical.over(TREE, EGG)
    assert TREE.nodes == ("Any", "Shell", "Spot", "Crack", "Dent")
    raw = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]])  # whole; a spot; a crack
    loss = objective.loss(raw, labels)
    p = torch.sigmoid(raw.detach()).double().numpy()
    asked = [(0, 0, 0), (1, 0, 1), (1, 1, 0), (1, 2, 1), (2, 0, 1), (2, 1, 1), (2, 2, 0), (2, 3, 1), (2, 4, 0)]
    by_hand = -np.mean([math.log(p[i, node] if there else 1 - p[i, node]) for i, node, there in asked])
    assert float(loss.detach()) == pytest.approx(by_hand)
    loss.backward()
    reached = {tuple(place) for place in torch.nonzero(raw.grad).tolist()}
    assert reached == {(image, node) for image, node, _ in asked}


def test_a_tree_for_other_classes_is_refused():
    with pytest.raises(MedicError, match="the leaves of the tree and the classes differ"):
        Hierarchical.over(TREE, CHEST_XRAY)
    reordered = Task("egg2", "multilabel", ("Dent", "Crack", "Spot", "Whole"))
    with pytest.raises(MedicError, match="this tree is for other classes than those of 'egg2'"):
        Hierarchical.over(TREE, EGG).outputs(reordered)
    assert Hierarchical.over(TREE, reordered).outputs(reordered) == 5


@pytest.mark.parametrize(
    "objective",
    [MultiLabel((0.1, 0.2, 0.3, 0.4), 0.1), MultiLabel(), Hierarchical.over(TREE, EGG)],
    ids=["weighted", "plain", "hierarchical"],
)
def test_an_objective_comes_back_from_its_plain_values(objective):
    assert objective_from_dict(json.loads(json.dumps(objective.to_dict()))) == objective
    assert objective_from_dict(objective.to_dict()) == objective


def test_the_tree_of_the_library_is_taken_by_name_with_and_without_a_class_for_none():
    assert objective_named("hierarchical", CHEST_XRAY) == Hierarchical.over(read_taxonomy(), CHEST_XRAY)
    assert objective_named("hierarchical", CHEST_XRAY_OR_NONE).outputs(CHEST_XRAY_OR_NONE) == 20
    assert objective_named("multilabel", CHEST_XRAY) == MultiLabel()
