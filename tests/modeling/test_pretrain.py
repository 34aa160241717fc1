"""A short pretraining on generated photographs, made once."""

import torch

from medic.modeling.classifier import Classifier
from medic.modeling.training.pretrain import Pretraining, pretrain_on_generated
from medic.modeling.training.recipe import Recipe
from medic.task import RETINOPATHY


def test_its_weights_start_another_model_and_nothing_is_made_twice(tmp_path):
    brief = Pretraining(patients=40, recipe=Recipe(epochs=1))
    run = pretrain_on_generated("squeezenet1_1", tmp_path, 64, pretraining=brief)
    assert run.finished
    assert run.prepared.synthetic
    started = Classifier(RETINOPATHY, "squeezenet1_1", image_size=64, weights=run.folder / "best")
    key = "features.0.weight"
    assert torch.equal(started.backbone.state_dict()[key], run.model().backbone.state_dict()[key])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jp*g")}
    again = pretrain_on_generated("squeezenet1_1", tmp_path, 64, pretraining=brief)
    assert again.history.equals(run.history)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jp*g")} == before
