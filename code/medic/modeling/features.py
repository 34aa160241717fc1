"""A frozen network as a featuriser, and a linear head that is learned on its features; the result is a run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from medic.data.prepare import Prepared
from medic.data.records import targets
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import metrics_for, score
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.fit import decide
from medic.modeling.training.loading import PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run, digest_of, written_by
from medic.task import Prediction

COSTS = {"logistic": (1e-4, 1e-3, 1e-2, 1e-1), "svm": (1e-5, 1e-4, 1e-3)}
"""The heads, and the inverse strengths of the ridge penalty that are tried for each (scikit-learn's ``C``)."""


def featurise(model: Classifier, prepared: Prepared, split: str, batch_size: int = 32) -> np.ndarray:
    """Return what a network hands to its last layer for each image of a split, without augmentation.

    It is kept in the prepared set's folder, in a file named by the weights below the last layer and by the images.

    Args:
        model: any classifier; put into evaluation mode. Where it averages over mirror images, so do the features.
        prepared: the prepared set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: images a step.

    Returns:
        float32 (N, D), rows in the order of ``prepared.split(split)``; D is 1,280 for an EfficientNet-Lite.

    Raises:
        MedicError: the network's last layer is no linear one (SqueezeNet).
    """
    data = PreparedDataset(prepared, split, task=model.task)
    # A prepared file is named by its content, so the names stand for the pixels.
    content = json.dumps([_body(model), data.rows["file"].tolist()])
    kept = prepared.folder / "features" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    if kept.is_file():
        return np.load(kept)
    caught: list[Tensor] = []
    hook = last_layer(model).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))
    try:
        with torch.inference_mode():
            for batch in loader(data, batch_size):
                model.eval().raw(model.inputs(batch.images.to(model.mean.device)))
                if model.flips:  # the images and their mirror images went through together
                    caught[-1] = caught[-1].unflatten(0, (2, -1)).mean(dim=0)
    finally:
        hook.remove()
    features = torch.cat(caught).numpy()
    kept.parent.mkdir(exist_ok=True)
    with replacing(kept) as temporary, open(temporary, "wb") as file:
        np.save(file, features)
    return features


def last_layer(model: Classifier) -> nn.Linear:
    """Return the layer that turns features into raw outputs; raises a ``MedicError`` where it is no linear one."""
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not isinstance(layers[-1], nn.Linear):
        raise MedicError(
            f"{model.backbone_name} ends in a convolution and has no features; take another, such as resnet18"
        )
    return layers[-1]


def fit_head(
    model: Classifier,
    prepared: Prepared,
    folder: str | os.PathLike,
    head: str = "logistic",
    sensitivity: float | None = None,
    seed: int = 0,
) -> Run:
    """Learn a linear head on the features of a frozen network, and make it the network's last layer.

    Each image goes through the network once; no layer of it changes. The features are scaled to mean 0 and variance 1.
    ``logistic`` minimises the model's own objective with a ridge penalty: with cross-entropy that is logistic
    regression, with several labels one logistic regression a label. ``svm`` is a linear support vector machine (Cortes
    & Vapnik, Machine Learning 20, 1995), whose answers for held-out patients logistic regression turns into
    probabilities (Platt, Advances in Large Margin Classifiers, 1999). Classes are weighed as the objective weighs them.
    The penalty is the one with the best score, the last of ``metrics_for``, in a cross-validation that keeps patients
    together. All of this is linear, so that the run's model is evaluated, exported and served like any other.

    Args:
        model: the network, with the weights that it is to keep; its last layer is replaced in place.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the run goes; a finished one with the same settings is returned as it is.
        head: ``logistic`` or ``svm``.
        sensitivity: as ``Recipe`` has it: the operating point is chosen for it on the validation split.
        seed: of the folds.

    Returns:
        The finished run. Its history has one line, its ``best`` and ``last`` are the same.

    Raises:
        MedicError: an unknown head, an SVM for another objective than cross-entropy, fewer than two training patients
            (for an SVM: in a class), a last layer that is not linear, or a folder that holds another run.
    """
    if head not in COSTS or (head == "svm" and not isinstance(model.objective, CrossEntropy)):
        raise MedicError(f"no head {head!r} for the objective {model.objective.name}; take 'logistic'")
    folder, recipe = Path(folder), Recipe(sensitivity=sensitivity, seed=seed).resolved(model.task)
    settings = {
        "model": model.to_dict(),
        "recipe": {"method": head, "costs": COSTS[head], "sensitivity": sensitivity, "seed": seed},
        "start": _body(model),
        "watch": [],
        "data": digest_of(prepared.records, model.task),
    }
    earlier = Run.peek(folder, settings)
    if earlier is not None and earlier.finished:
        return earlier
    started = time.perf_counter()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    cost = _learn(model, prepared, head, seed)
    seconds = time.perf_counter() - started
    with torch.inference_mode():
        raw = last_layer(model)(torch.from_numpy(featurise(model, prepared, "validation")).to(model.mean.device))
    reached = _scores(model, raw, targets(prepared.split("validation"), model.task))
    history = {"epoch": 1, "cost": cost, **{f"validation_{name}": value for name, value in reached.items()}}
    history |= {"seconds": seconds, "images_per_second": len(prepared.split("train")) / seconds}
    decide(model.save(folder / "best"), prepared, model.task, recipe)
    shutil.copytree(folder / "best", folder / "last", dirs_exist_ok=True)
    pd.DataFrame([history]).to_csv(folder / "history.csv", index=False)
    prepared.records.to_csv(folder / "records.csv", index=False)
    about = {"settings": settings, "finished": True, "processes": 1, "best_epoch": 1, "seconds": seconds}
    about |= {"prepared": Path(os.path.relpath(prepared.folder, folder)).as_posix()}
    write_json(folder / "run.json", about | written_by("medic", "torch", "torchvision", "scikit-learn"))
    return Run.load(folder)


def _body(model: Classifier) -> str:
    """SHA-256 of all that decides the features: size, normalisation, and weights but those of the last layer."""
    settings = [model.image_size, model.flips, model.mean.tolist(), model.std.tolist()]
    found, own = hashlib.sha256(json.dumps(settings).encode()), set(map(id, last_layer(model).parameters()))
    for name, value in sorted(model.backbone.state_dict(keep_vars=True).items()):
        if id(value) not in own:
            found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _learn(model: Classifier, prepared: Prepared, head: str, seed: int) -> float:
    """Fill the last layer; return the cost that was chosen."""
    rows, outputs, loss = prepared.split("train"), last_layer(model).out_features, model.objective.loss
    labels, patients, several = targets(rows, model.task), rows["patient"].to_numpy(), model.task.kind == "multilabel"
    classes = [np.ones(len(rows), bool)] if several else [labels == code for code in range(len(model.task.classes))]
    fewest = min(len(set(patients[having])) for having in classes)
    if len(set(patients)) < 2 or (head == "svm" and fewest < 2):
        raise MedicError(f"a head needs two training patients, an SVM two a class, not {fewest}; get more images")
    dealt = (GroupKFold if several else StratifiedGroupKFold)(min(max(fewest, 2), 5), shuffle=True, random_state=seed)
    parts = list(dealt.split(rows, None if several else labels, patients))
    features = featurise(model, prepared, "train").astype(np.float64)
    scaler = StandardScaler().fit(features)
    x, y = torch.from_numpy(scaler.transform(features)), torch.from_numpy(labels)
    # The solution lies in the space that the images span: the same one, from fewer numbers where images are few.
    basis = torch.linalg.svd(x, full_matrices=False).Vh.T
    x = x @ basis

    def solve(rows: np.ndarray, cost: float) -> tuple[Tensor, Tensor]:
        # The loss of several labels is their mean; scikit-learn's cost is for one of them.
        scaled = cost * (outputs if several else 1)
        return _minimise(_hinge(model) if head == "svm" else loss, x[rows], y[rows], outputs, scaled)

    best = (-np.inf, 0.0, None, None)
    for cost in COSTS[head]:
        raw = torch.zeros((len(x), outputs), dtype=x.dtype)
        for known, asked in parts:
            weight, bias = solve(known, cost)
            raw[asked] = x[asked] @ weight + bias
        scale, shift = torch.eye(outputs, dtype=x.dtype), torch.zeros(outputs, dtype=x.dtype)
        if head == "svm":
            scale, shift = _minimise(loss, raw, y, outputs, 1.0)
        reached = np.nan_to_num(list(_scores(model, raw @ scale + shift, labels).values())[-1], nan=-1.0)
        best = max(best, (reached, cost, scale, shift), key=lambda tried: tried[0])
    _, cost, scale, shift = best
    weight, bias = solve(np.arange(len(x)), cost)
    weight, bias = (basis @ weight @ scale).T / torch.from_numpy(scaler.scale_), bias @ scale + shift
    with torch.no_grad():
        last_layer(model).weight.copy_(weight)
        last_layer(model).bias.copy_(bias - weight @ torch.from_numpy(scaler.mean_))
    return cost


def _scores(model: Classifier, raw: Tensor, truth: np.ndarray) -> dict[str, float]:
    prediction = Prediction(model.task, *(output.cpu().numpy() for output in model.objective.decode(raw, model.task)))
    return {name: score(metric, truth, prediction) for name, metric in metrics_for(model.task).items()}


def _minimise(
    loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor, outputs: int, cost: float
) -> tuple[Tensor, Tensor]:
    """Return weight (D, K) and bias (K,) with the least mean loss and ridge penalty, as scikit-learn's ``C`` has it."""
    values = torch.zeros((x.shape[1] + 1, outputs), dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [values], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(x @ values[:-1] + values[-1], labels) + values[:-1].square().sum() / (2 * cost * len(x))
        total.backward()
        return total

    optimizer.step(closure)
    return values.detach()[:-1], values.detach()[-1]


def _hinge(model: Classifier) -> Callable[[Tensor, Tensor], Tensor]:
    """The squared hinge loss of each class against all others, summed; what scikit-learn's ``LinearSVC`` minimises."""
    factors = model.objective.class_weights or (1.0,) * len(model.task.classes)

    def loss(raw: Tensor, labels: Tensor) -> Tensor:
        margin = (1 - raw * (2 * nn.functional.one_hot(labels, raw.shape[1]) - 1)).clamp(min=0)
        return (margin.square().sum(dim=1) * raw.new_tensor(factors)[labels]).mean()

    return loss
