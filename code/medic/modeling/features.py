"""A frozen network as a featuriser, and a linear head that is learned on its features; the result is a run."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
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
from medic.files import replacing
from medic.modeling.classifier import Classifier, last_layer
from medic.modeling.metrics import metrics_for, score
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.decide import decide
from medic.modeling.training.fit import alone
from medic.modeling.training.loading import PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run, begin_run, processes, settings_of
from medic.task import Prediction

Loss = Callable[[Tensor, Tensor], Tensor]

COSTS = {"logistic": (1e-4, 1e-3, 1e-2, 1e-1), "svm": (1e-5, 1e-4, 1e-3)}
"""The heads, and the inverse strengths of the ridge penalty that are tried for each (scikit-learn's ``C``)."""


@torch.inference_mode()
def featurise(model: Classifier, prepared: Prepared, split: str) -> np.ndarray:
    """Return what a network hands to its last layer for each image of a split, without augmentation.

    It is kept in the prepared set's folder, in a file named by the weights below the last layer and by the images.

    Args:
        model: any classifier; put into evaluation mode. Where it averages over mirror images, so do the features.
        prepared: the prepared set.
        split: ``train``, ``validation`` or ``test``.

    Returns:
        float32 (N, D), rows in the order of ``prepared.split(split)``; D is 1,280 for an EfficientNet-Lite.

    Raises:
        MedicError: the network's last layer is no linear one (SqueezeNet).
    """
    data = PreparedDataset(prepared, split, task=model.task)
    # A prepared file is named by its content, so the names stand for the pixels.
    content = json.dumps([_body(model), data.files])
    kept = prepared.folder / "features" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    if kept.is_file():
        return np.load(kept)
    device = model.eval().mean.device
    inputs = (model.inputs(batch.images.to(device)) for batch in loader(data, 32))
    features = torch.cat([model.raw_and_features(x)[1].float().cpu() for x in inputs]).numpy()
    kept.parent.mkdir(exist_ok=True)
    with replacing(kept) as temporary, open(temporary, "wb") as file:
        np.save(file, features)
    return features


def fit_head(
    model: Classifier,
    prepared: Prepared,
    folder: str | os.PathLike,
    head: str = "logistic",
    sensitivity: float | None = None,
    seed: int = 0,
) -> Run:
    """Learn a linear head on the features of a frozen network, and make it the network's last layer.

    The features are scaled to mean 0 and variance 1. ``logistic`` minimises the model's own objective with a ridge
    penalty: with cross-entropy that is logistic regression, with several labels one a label. ``svm`` is a linear
    support vector machine (Cortes & Vapnik, Machine Learning 20, 1995), whose answers for held-out patients logistic
    regression turns into probabilities (Platt, Advances in Large Margin Classifiers, 1999). Classes are weighed as the
    objective weighs them. The penalty is the one with the best score, the last of ``metrics_for``, in a
    cross-validation that keeps patients together.

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
            (for an SVM: in a class), a last layer that is not linear, several processes, or a folder that is in use or
            holds another run.
    """
    if processes() > 1:
        raise MedicError("one process learns a last layer (--frozen); start the same command without torchrun")
    if head not in COSTS or (head == "svm" and not isinstance(model.objective, CrossEntropy)):
        raise MedicError(f"no head {head!r} for the objective {model.objective.name}; take 'logistic'")
    folder, recipe = Path(folder), Recipe(sensitivity=sensitivity, seed=seed).resolved(model.task)
    how = {"method": head, "costs": COSTS[head], "sensitivity": sensitivity, "seed": seed}
    settings = settings_of(model, prepared, how, _body(model))
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
    with alone(folder):
        Run.peek(folder, settings)  # which refuses a run that has come first meanwhile, with other settings
        decide(model.save(folder / "best"), prepared, model.task, recipe, featurise(model, prepared, "train"))
        shutil.copytree(folder / "best", folder / "last", dirs_exist_ok=True)
        pd.DataFrame([history]).to_csv(folder / "history.csv", index=False)
        begin_run(folder, settings, prepared, "scikit-learn").finish(best_epoch=1, seconds=seconds)
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
    rows, last, loss = prepared.split("train"), last_layer(model), model.objective.loss
    labels, patients, several = targets(rows, model.task), rows["patient"].to_numpy(), model.task.kind == "multilabel"
    classes = [np.ones(len(rows), bool)] if several else [labels == code for code in range(len(model.task.classes))]
    fewest = min(len(set(patients[having])) for having in classes)
    if len(set(patients)) < 2 or (head == "svm" and fewest < 2):
        raise MedicError(f"a head needs two training patients, an SVM two a class, not {fewest}; get more images")
    dealt = (GroupKFold if several else StratifiedGroupKFold)(min(max(fewest, 2), 5), shuffle=True, random_state=seed)
    parts = list(dealt.split(rows, None if several else labels, patients))
    scaler = StandardScaler()
    x = torch.from_numpy(scaler.fit_transform(featurise(model, prepared, "train").astype(np.float64)))
    # The solution lies in the space that the images span: the same one, from fewer numbers where images are few.
    basis, y = torch.linalg.svd(x, full_matrices=False).Vh.T, torch.from_numpy(labels)
    x, fitted = x @ basis, partial(_hinge, factors=model.objective.class_weights) if head == "svm" else loss
    # The loss of several labels is their mean, scikit-learn's cost is of one.
    each, best = last.out_features if several else 1, (-np.inf, 0.0, 1.0, 0.0)
    for cost in COSTS[head]:
        raw = torch.zeros((len(x), last.out_features), dtype=x.dtype)
        for known, asked in parts:
            weight, bias = _linear(fitted, x[known], y[known], last.out_features, cost * each)
            raw[asked] = x[asked] @ weight + bias
        slope, shift = _platt(loss, raw, y) if head == "svm" else (1.0, 0.0)
        reached = np.nan_to_num(list(_scores(model, raw * slope + shift, labels).values())[-1], nan=-1.0)
        best = max(best, (reached, cost, slope, shift), key=lambda tried: tried[0])
    _, cost, slope, shift = best
    weight, bias = _linear(fitted, x, y, last.out_features, cost * each)
    weight = slope * (basis @ weight).T / torch.from_numpy(scaler.scale_)
    with torch.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(slope * bias + shift - weight @ torch.from_numpy(scaler.mean_))
    return cost


def _scores(model: Classifier, raw: Tensor, truth: np.ndarray) -> dict[str, float]:
    prediction = Prediction(model.task, *(output.cpu().numpy() for output in model.objective.decode(raw, model.task)))
    return {name: score(metric, truth, prediction) for name, metric in metrics_for(model.task).items()}


def _linear(loss: Loss, x: Tensor, labels: Tensor, outputs: int, cost: float) -> list[Tensor]:
    """Return weight (D, K) and bias (K,) with the least mean loss and ridge penalty, as scikit-learn's ``C`` has it."""

    def total(weight: Tensor, bias: Tensor) -> Tensor:
        return loss(x @ weight + bias, labels) + weight.square().sum() / (2 * cost * len(x))

    return _minimise(total, (x.shape[1], outputs), outputs)


def _platt(loss: Loss, raw: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope, above 0, and the shift (K,) that turn raw outputs into the most probable logits.

    Answers for few held-out patients may run against the truth by chance, as each that is left out moves the others'
    mean the other way. By a standard normal prior of its logarithm the slope is then small; it cannot be negative.
    """

    def total(log_slope: Tensor, shift: Tensor) -> Tensor:
        return loss(raw * log_slope.exp() + shift, labels) + log_slope.square().sum() / (2 * len(raw))

    log_slope, shift = _minimise(total, 1, raw.shape[1])
    return log_slope.exp(), shift


def _minimise(total: Callable[..., Tensor], *shapes: int | tuple[int, ...]) -> list[Tensor]:
    """Return the float64 tensors of these shapes for which a smooth function is least, by L-BFGS from zeros."""
    values = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    optimizer = torch.optim.LBFGS(
        values, max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = total(*values)
        found.backward()
        return found

    optimizer.step(closure)
    return [value.detach() for value in values]


def _hinge(raw: Tensor, labels: Tensor, factors: tuple[float, ...] | None) -> Tensor:
    """The squared hinge loss of each class against all others, summed; what scikit-learn's ``LinearSVC`` minimises."""
    margin = (1 - raw * (2 * nn.functional.one_hot(labels, raw.shape[1]) - 1)).clamp(min=0)
    return (margin.square().sum(dim=1) * raw.new_tensor(factors or [1.0] * raw.shape[1])[labels]).mean()
