"""A frozen network as a featuriser, and a linear support vector machine on its features; the result is a run."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import metrics_for, score
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.fit import decide
from medic.modeling.training.loading import PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run, difference, digest_of, json_values, written_by
from medic.task import Prediction, Task


@dataclass(frozen=True)
class LinearSVM:
    """How to learn on features.

    Attributes:
        costs: of a margin that is not kept, to choose from by cross-validation over the training patients; smaller ones
            give smoother answers. The features have mean 0 and variance 1 by then.
        folds: of that cross-validation; fewer where a class has fewer patients.
        sensitivity: as ``Recipe`` has it: the operating point is chosen for it on the validation split.
        seed: of the folds, and of the solver, which draws where there are more features than images.
    """

    costs: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    folds: int = 5
    sensitivity: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.costs or min(self.costs) <= 0 or self.folds < 2:
            raise MedicError("a linear SVM needs one or more costs above 0 and two folds or more to choose among them")


def featurise(model: Classifier, prepared: Prepared, split: str, batch_size: int = 32) -> np.ndarray:
    """What a network hands to its last layer for each image of a split, without augmentation.

    Args:
        model: any classifier; put into evaluation mode.
        prepared: the prepared set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: images a step.

    Returns:
        float32 (N, D), rows in the order of ``prepared.split(split)``; D is 512 for a ResNet-18 or -34, 2,048 for the
        deeper ResNets, 4,096 for AlexNet.

    Raises:
        MedicError: the network's last layer is no linear one (SqueezeNet).
    """
    caught: list[torch.Tensor] = []
    head = last_layer(model)
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            model.eval()
            for batch in loader(PreparedDataset(prepared, split, task=model.task), batch_size):
                model.backbone(model.inputs(batch.images.to(device)))
    finally:
        hook.remove()
    return torch.cat(caught).numpy()


def last_layer(model: Classifier) -> nn.Linear:
    """The layer that turns features into raw outputs.

    Raises:
        MedicError: it is no linear one.
    """
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not isinstance(layers[-1], nn.Linear):
        raise MedicError(
            f"{model.backbone_name} ends in a convolution and has no features; take another, such as resnet18"
        )
    return layers[-1]


def fit_svm(model: Classifier, prepared: Prepared, folder: str | os.PathLike, svm: LinearSVM | None = None) -> Run:
    """Learn a linear support vector machine on a network's features, and make it the network's last layer.

    Each image goes through the network once; no layer of it changes. The features are standardised; the SVM (Cortes &
    Vapnik, Machine Learning 20, 1995) weighs the classes so that each counts the same, and its cost is the one with the
    best area under the ROC curve (for more than two classes: balanced accuracy) in a cross-validation that keeps
    patients together. Its decision values of the held-out folds are turned into probabilities by logistic regression
    (Platt, Advances in Large Margin Classifiers, 1999). All of these are linear, so that together they are one linear
    layer: the run's model is evaluated, exported and served like any other.

    Args:
        model: the network, with the weights that it is to keep; its last layer is replaced in place.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the run goes; a finished one with the same settings is returned as it is.
        svm: how to learn; the defaults when None.

    Returns:
        The finished run. Its history has one line, its ``best`` and ``last`` are the same.

    Raises:
        MedicError: the task is multilabel or has another objective than cross-entropy, a class has fewer than two
            training patients, the network's last layer is not linear, or the folder holds another run.
    """
    svm, folder = svm or LinearSVM(), Path(folder)
    if model.task.kind == "multilabel" or not isinstance(model.objective, CrossEntropy):
        raise MedicError(
            "a linear SVM chooses one of several classes: give it such a task and the objective CrossEntropy"
        )
    settings = json_values(
        {
            "model": model.to_dict(),
            "recipe": {"method": "svm", **asdict(svm)},
            "start": model.digest,
            "watch": [],
            "data": digest_of(prepared.records, model.task),
        }
    )
    earlier = Run.peek(folder)
    if earlier is not None and earlier.about["settings"] != settings:
        raise MedicError(
            f"{folder} holds a run with other settings ({difference(earlier.about['settings'], settings)}); choose "
            "another folder, or delete that one"
        )
    if earlier is not None and earlier.finished:
        return earlier
    started = time.perf_counter()
    rows = prepared.split("train")
    cost = _learn(last_layer(model), featurise(model, prepared, "train"), rows, model.task, svm)
    seconds = time.perf_counter() - started
    history = {"epoch": 1, "cost": cost, **_validated(model, prepared), "seconds": seconds}
    history["images_per_second"] = len(rows) / seconds
    decide(model.save(folder / "best"), prepared, model.task, Recipe(sensitivity=svm.sensitivity))
    shutil.copytree(folder / "best", folder / "last", dirs_exist_ok=True)
    for name, table in {"history": pd.DataFrame([history]), "records": prepared.records}.items():
        with replacing(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    about = {
        "settings": settings,
        "finished": True,
        "prepared": Path(os.path.relpath(prepared.folder, folder)).as_posix(),
        "processes": 1,
        "best_epoch": 1,
        "seconds": seconds,
        **written_by("medic", "torch", "torchvision", "scikit-learn"),
    }
    write_json(folder / "run.json", about)
    return Run.load(folder)


def _learn(head: nn.Linear, features: np.ndarray, rows: pd.DataFrame, task: Task, svm: LinearSVM) -> float:
    """Fill the last layer; give back the cost that was chosen."""
    labels = rows["label"].to_numpy()
    patients = rows.groupby("label")["patient"].nunique().reindex(range(len(task.classes)), fill_value=0)
    folds = min(svm.folds, int(patients.min()))
    if folds < 2:
        short = task.classes[int(patients.idxmin())]
        raise MedicError(
            f"the class {short} has {patients.min()} training patients, and cross-validation needs two or more; get "
            "more images, or leave the class out"
        )
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=svm.seed)
    machine = make_pipeline(
        StandardScaler(), LinearSVC(class_weight="balanced", max_iter=20_000, random_state=svm.seed)
    )
    grid = {"linearsvc__C": svm.costs}
    judged_by = "roc_auc" if len(task.classes) == 2 else "balanced_accuracy"
    groups = rows["patient"]
    try:
        search = GridSearchCV(machine, grid, scoring=judged_by, cv=parts).fit(features, labels, groups=groups)
        best = search.best_estimator_
        held_out = cross_val_predict(best, features, labels, groups=groups, cv=parts, method="decision_function")
    except ValueError as error:
        raise MedicError(
            f"{len(set(groups))} training patients cannot be dealt into {folds} parts that all have every class "
            f"({error}); get more images of {task.classes[int(patients.idxmin())]}"
        ) from error
    held_out = held_out.reshape(len(labels), -1)
    to_probability = LogisticRegression(max_iter=1000).fit(held_out, labels)
    scale, separating = best[0], best[1]
    weight = separating.coef_ / scale.scale_
    bias = separating.intercept_ - weight @ scale.mean_
    weight, bias = to_probability.coef_ @ weight, to_probability.coef_ @ bias + to_probability.intercept_
    if len(task.classes) == 2:  # the raw output of the first class stays 0, that of the second is the log odds
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return float(search.best_params_["linearsvc__C"])


def _validated(model: Classifier, prepared: Prepared) -> dict[str, float]:
    data = PreparedDataset(prepared, "validation", task=model.task)
    prediction = Prediction.joined([model.predict_pixels(batch.images.numpy()) for batch in loader(data, 32)])
    return {
        f"validation_{name}": score(metric, data.labels, prediction) for name, metric in metrics_for(model.task).items()
    }
