"""Plans by name: the published one says what was published, and each builds a model that can be trained."""

from dataclasses import replace

import pytest

from medic.cli import RecipeName
from medic.errors import MedicError
from medic.modeling.augment_published import PublishedAugmentation
from medic.modeling.objectives import CrossEntropy
from medic.modeling.recipes import RECIPES, find_plan
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE, DIGITS, FINDINGS, RETINOPATHY, Task


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
    ],
)
def test_each_task_has_a_usual_plan_and_a_line_has_those_of_its_tasks(task, name, plan):
    assert find_plan(task, name) == RECIPES[plan]


def test_findings_with_a_class_for_none_are_learned_as_findings_are():
    assert find_plan(CHEST_XRAY_OR_NONE) == replace(RECIPES["chexnet"], task=CHEST_XRAY_OR_NONE)


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (RETINOPATHY, "best", "no recipe is called 'best'; for retinopathy there is: medic, published"),
        (RETINOPATHY, "binary", "'binary' is for chest_xray_binary, not for retinopathy; .* medic, published"),
        (CHEST_XRAY_BINARY, "chexnet", "'chexnet' answers 'chest_xray' .multilabel., not 'chest_xray_binary'"),
        (Task("eggs", "multiclass", ("raw", "boiled")), None, "'eggs' belongs to none of the lines"),
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
