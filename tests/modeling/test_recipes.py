"""Plans by name: the published one says what was published, and each builds a model that can be trained."""

from dataclasses import replace

import pytest

from medic.cli.modeling import RecipeName
from medic.data.records import class_weights
from medic.errors import MedicError
from medic.modeling.augment.published import PublishedAugmentation
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.plans import RECIPES, find_plan
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


def test_the_published_recipe_is_the_published_one():
    plan = RECIPES["published"]
    assert (plan.backbone, plan.image_size, plan.objective.name) == ("efficientnet_v2_m", 380, "regression")
    assert (plan.contrast, plan.flips) == (None, False)
    recipe = plan.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (30, 18, 1e-3)
    assert (recipe.schedule, recipe.amsgrad, recipe.choose_by, recipe.ema) == ("steps", True, "macro_f1", None)
    assert recipe.augmentation == PublishedAugmentation()


def test_our_recipe_builds_a_model_with_its_own_preprocessing_inside(tiny_prepared):
    plan = find_plan(RETINOPATHY, "medic")
    model = plan.classifier(tiny_prepared)
    assert model.preprocessing == tiny_prepared.preprocessing
    assert model.to_dict()["backbone"] == plan.backbone
    assert (model.image_size, model.flips, model.contrast) == (plan.image_size, plan.flips, plan.contrast)
    assert plan.recipe.resolved(RETINOPATHY).choose_by == "last"


@pytest.mark.parametrize(
    ("task", "name", "plan"),
    [
        (RETINOPATHY, None, "medic"),
        (DIGITS, None, "digits"),
        (CHEST_XRAY, None, "chexnet"),
        (CHEST_XRAY, "binary", "binary"),  # the line's usual task stands for the line
        (CHEST_XRAY_BINARY, None, "binary"),
        (SKIN_LESION, None, "lesions"),
        (SKIN_LESION, "lesions", "lesions"),
    ],
)
def test_each_task_has_a_usual_plan_and_a_line_has_those_of_its_tasks(task, name, plan):
    assert find_plan(task, name) == RECIPES[plan]


@pytest.mark.parametrize("name", [None, "lesions"])
@pytest.mark.parametrize(("task", "sensitivity", "choose_by"), [(EGGS, 0.9, "auroc"), (THREE, None, "macro_f1")])
def test_images_of_ones_own_are_learned_as_lesions_are(task, sensitivity, choose_by, name):
    plan, lesions = find_plan(task, name), RECIPES["lesions"]
    assert plan == replace(lesions, task=task, recipe=replace(lesions.recipe, sensitivity=sensitivity))
    assert plan.recipe.resolved(task).choose_by == choose_by


def test_the_plan_of_ones_own_classes_builds_a_model_that_weighs_them(tiny_prepared):
    records = tiny_prepared.records.assign(label=tiny_prepared.records["label"].clip(upper=2))
    model = find_plan(THREE).classifier(replace(tiny_prepared, records=records))
    assert model.task == THREE
    assert model.objective.class_weights == class_weights(records.loc[records["split"] == "train", "label"], THREE)
    assert model.flips


def test_findings_with_a_class_for_none_are_learned_as_findings_are():
    assert find_plan(CHEST_XRAY_OR_NONE) == replace(RECIPES["chexnet"], task=CHEST_XRAY_OR_NONE)


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (RETINOPATHY, "best", "no recipe is called 'best'; for retinopathy there is: medic, published"),
        (RETINOPATHY, "binary", "'binary' is for chest_xray_binary, not for retinopathy; .* medic, published"),
        (CHEST_XRAY_BINARY, "chexnet", "'chexnet' answers 'chest_xray' .multilabel., not 'chest_xray_binary'"),
        (SKIN_LESION, "medic", "'medic' is for retinopathy, not for skin_lesion; for that there is: lesions"),
        (RETINOPATHY, "lesions", "'lesions' is for skin_lesion, not for retinopathy"),
        (EGGS, "medic", "the recipe 'medic' is none for images of your own; there is: lesions"),
        (EGGS, "best", "the recipe 'best' is none for images of your own; there is: lesions"),
        (
            Task("meals", "multilabel", ("egg", "ham")),
            None,
            "no recipe for 'meals', which has several classes an image",
        ),
    ],
)
def test_a_plan_that_does_not_suit_the_task_is_refused(task, name, said):
    with pytest.raises(MedicError, match=said):
        find_plan(task, name)


def test_the_plans_for_radiographs_weigh_the_loss_by_the_training_images(chest_prepared):
    train = chest_prepared.split("train")
    findings = RECIPES["chexnet"].classifier(chest_prepared).objective
    assert findings.prevalence == pytest.approx(train[list(FINDINGS)].mean().to_list())
    weights = RECIPES["binary"].classifier(chest_prepared).objective.class_weights
    counts = train["label"].value_counts().sort_index()
    assert counts.to_numpy() * weights == pytest.approx([len(train) / 2] * 2)


def test_images_that_are_drawn_balanced_are_not_weighted_too(chest_prepared):
    plan = RECIPES["binary"]
    balanced = replace(plan, recipe=replace(plan.recipe, balanced=True))
    assert balanced.classifier(chest_prepared).objective == CrossEntropy()


def test_the_plans_for_radiographs_are_those_that_the_issue_names():
    binary, chexnet = RECIPES["binary"], RECIPES["chexnet"]
    assert (binary.backbone, binary.recipe.frozen) == ("resnet50", ("conv1", "bn1", "layer1"))
    assert (chexnet.backbone, chexnet.recipe.frozen, chexnet.image_size) == ("densenet121", (), 224)
    assert binary.recipe.resolved(CHEST_XRAY_BINARY).choose_by == "auroc"
    assert chexnet.recipe.resolved(CHEST_XRAY).choose_by == "mean_auroc"


def test_where_the_loss_is_weighted_the_operating_point_is_chosen():
    assert all(plan.recipe.sensitivity for plan in RECIPES.values() if plan.weighted)
    assert RECIPES["chexnet"].recipe.sensitivity == 0.8


def test_the_command_line_offers_all_recipes():
    assert {name.value for name in RecipeName} == set(RECIPES)
