"""Plans by name: the published one says what was published, and both build a model that can be trained."""

import pytest

from medic.cli import RecipeName
from medic.errors import MedicError
from medic.modeling.augment_published import PublishedAugmentation
from medic.modeling.recipes import RECIPES, find_plan
from medic.task import RETINOPATHY


def test_the_published_recipe_is_the_published_one():
    plan = RECIPES["published"]
    assert (plan.backbone, plan.image_size, plan.objective.name) == ("efficientnet_v2_m", 380, "regression")
    assert (plan.contrast, plan.flips) == (None, False)
    recipe = plan.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (30, 18, 1e-3)
    assert (recipe.schedule, recipe.amsgrad, recipe.choose_by, recipe.ema) == ("steps", True, "macro_f1", None)
    assert recipe.augmentation == PublishedAugmentation()


def test_our_recipe_builds_a_model_with_its_own_preprocessing_inside(tiny_prepared):
    plan = find_plan("medic")
    model = plan.classifier(RETINOPATHY, tiny_prepared.preprocessing)
    assert model.to_dict()["backbone"] == plan.backbone
    assert (model.image_size, model.flips, model.contrast) == (plan.image_size, plan.flips, plan.contrast)
    assert plan.recipe.resolved(RETINOPATHY).choose_by == "last"


def test_the_command_line_offers_all_recipes_and_an_unknown_one_is_refused():
    assert {name.value for name in RecipeName} == set(RECIPES)
    with pytest.raises(MedicError, match="no recipe is called 'best'; there is: medic, published"):
        find_plan("best")
