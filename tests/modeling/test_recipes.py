"""Recipes refuse what makes no sense; plans by name say what was published, and each builds a model to train."""

import math
import re
from dataclasses import replace

import pytest
import torch

from medic.data.records import class_weights
from medic.errors import MedicError
from medic.modeling.augment import PublishedAugmentation
from medic.modeling.backbones import backbone
from medic.modeling.objectives import Regression
from medic.modeling.training.plans import BINARY, CHEXNET, LESIONS, MEDIC, PUBLISHED, find_plan
from medic.modeling.training.recipe import Recipe
from medic.task import (
    CHEST_XRAY,
    CHEST_XRAY_BINARY,
    CHEST_XRAY_OR_NONE,
    DIGITS,
    FINDINGS,
    RETINOPATHY,
    SKIN_LESION,
    Task,
)

EGGS = Task("own", "multiclass", ("boiled", "raw"))
THREE = Task("own", "multiclass", ("boiled", "fried", "raw"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "epochs is 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size is 1 or more, not 0"),
        ({"learning_rate": 0.0}, "learning_rate is a number above 0, such as 0.001, not 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is a number above 0, such as 0.001, not nan"),
        ({"head_factor": math.inf}, "head_factor is a number above 0, such as 10, not inf"),
        ({"weight_decay": -1}, "weight_decay is 0 or more"),
        ({"seed": -1}, "seed is a whole number from 0 to 4294967295, not -1"),
        ({"workers": -1}, "workers is 0 to 256"),
        ({"sensitivity": 1.1}, "sensitivity is a share above 0 and up to 1"),
        ({"schedule": "cosine"}, "schedule is one of one_cycle, steps, not 'cosine'"),
        ({"precision": "8-bit"}, "precision is one of auto, 32-true"),
        ({"choose_by": "loss"}, "choose_by is one of None, accuracy"),
        ({"track": "paper"}, "track is one of None, mlflow, tensorboard"),
        ({"sensitivity": 0.9}, "'retinopathy' chooses among several classes and has no sensitivity"),
        ({"choose_by": "mean_auroc"}, "has no mean_auroc to choose the best epoch by; take accuracy or macro_f1 or av"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_those_that_do(settings, said):
    with pytest.raises(MedicError, match=re.escape(said)):
        Recipe(**settings).resolved(CHEST_XRAY_BINARY if "choose_by" in settings else RETINOPATHY)


def test_the_published_recipe_is_the_published_one():
    recipe = PUBLISHED.recipe
    assert (PUBLISHED.backbone, PUBLISHED.image_size, PUBLISHED.objective) == ("efficientnet_v2_m", 380, Regression())
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.head_factor) == (30, 18, 1e-3, 1)
    assert (recipe.schedule, recipe.amsgrad, recipe.choose_by) == ("steps", True, "macro_f1")
    assert recipe.augmentation == PublishedAugmentation()
    assert Recipe().resolved(CHEST_XRAY).choose_by == "mean_auroc"


@pytest.mark.parametrize(
    ("task", "name", "backbone", "answers"),
    [
        (RETINOPATHY, None, "efficientnet_lite0", RETINOPATHY),
        (RETINOPATHY, "published", "efficientnet_v2_m", RETINOPATHY),
        (DIGITS, None, "efficientnet_lite0", DIGITS),
        (CHEST_XRAY, None, "efficientnet_lite0", CHEST_XRAY),
        (CHEST_XRAY_BINARY, "medic", "efficientnet_lite0", CHEST_XRAY_BINARY),
        (CHEST_XRAY_OR_NONE, None, "efficientnet_lite0", CHEST_XRAY_OR_NONE),
        (CHEST_XRAY_OR_NONE, "chexnet", "densenet121", CHEST_XRAY_OR_NONE),
        (CHEST_XRAY, "binary", "resnet50", CHEST_XRAY_BINARY),  # the usual task stands for the data set
        (SKIN_LESION, None, "efficientnet_lite0", SKIN_LESION),
        (EGGS, "medic", "efficientnet_lite0", EGGS),
    ],
)
def test_each_task_has_a_usual_plan_with_imagenet_weights_and_a_data_set_those_of_its_tasks(
    task, name, backbone, answers
):
    plan = find_plan(task, name)
    assert (plan.backbone, plan.task, plan.weights) == (backbone, answers, "imagenet")
    plan.recipe.resolved(plan.task)
    assert plan.recipe.sensitivity or not (plan.weighted == 1 and plan.task.thresholds)


@pytest.mark.parametrize(("task", "sensitivity"), [(EGGS, 0.9), (THREE, None)])
def test_images_of_ones_own_are_learned_as_lesions_are(task, sensitivity):
    plan = find_plan(task)
    assert plan == replace(LESIONS, task=task, recipe=replace(LESIONS.recipe, sensitivity=sensitivity))


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (RETINOPATHY, "best", "there is no recipe 'best' for 'retinopathy', .*; there is: medic, published"),
        (RETINOPATHY, "binary", "no recipe 'binary' for 'retinopathy', which is ordinal; there is: medic, published"),
        (CHEST_XRAY_BINARY, "chexnet", "for 'chest_xray_binary', which is multiclass; there is: medic, binary"),
        (EGGS, "published", "there is no recipe 'published' for 'own', which is multiclass; there is: medic"),
        (Task("meals", "multilabel", ("egg", "ham")), None, "for 'meals', which is multilabel; there is: none"),
    ],
)
def test_a_plan_that_does_not_suit_the_task_is_refused(task, name, said):
    with pytest.raises(MedicError, match=said):
        find_plan(task, name)


def test_losses_are_weighted_by_the_training_images_as_far_as_the_plan_says(chest_prepared, tiny_prepared):
    train = chest_prepared.split("train")
    findings = CHEXNET.classifier(chest_prepared, "none").objective
    assert findings.prevalence == pytest.approx(train[list(FINDINGS)].mean().to_list())
    weights = BINARY.classifier(chest_prepared, "none").objective.class_weights
    assert weights == pytest.approx(class_weights(train["label"], CHEST_XRAY_BINARY))
    grades = class_weights(tiny_prepared.split("train")["label"], RETINOPATHY)
    assert MEDIC.classifier(tiny_prepared).objective.class_weights == pytest.approx([w**0.5 for w in grades])


def test_a_plan_starts_from_its_own_weights_or_those_that_are_asked_for(tiny_prepared):
    ours, random = (MEDIC.classifier(tiny_prepared, weights).backbone.state_dict() for weights in (None, "none"))
    name = next(iter(ours))
    assert ours[name].shape == random[name].shape
    assert not ours[name].equal(random[name])
    assert ours[name].equal(MEDIC.classifier(tiny_prepared, "imagenet").backbone.state_dict()[name])


@pytest.mark.parametrize(("network", "precision"), [("resnet18", "bf16-mixed"), ("efficientnet_lite0", "32-true")])
def test_bfloat16_is_taken_where_it_is_faster(network, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert Recipe().resolved(RETINOPATHY, backbone(network, 5)).precision == precision
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert Recipe().resolved(RETINOPATHY, backbone(network, 5)).precision == "32-true"
