"""Mistakes in scoring a model, committed on purpose, and what each one costs (see ``mistakes``)."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.backbones import backbone
from medic.modeling.classifier import Classifier
from medic.modeling.metrics import accuracy, confusion_matrix, macro_f1, quadratic_weighted_kappa
from medic.modeling.mistakes import KAPPA, Mistake, rows_of
from medic.modeling.objectives import Regression
from medic.modeling.training.run import Run
from medic.task import Task

_BATCH = 64


def rounded_not_clipped(run: Run, split: str = "validation", which: str = "best") -> Mistake:
    """The outputs of a regression rounded, but left where they fall outside the scale.

    A value outside is a class of its own for scikit-learn: macro F1 is then a mean over six or seven classes. Where
    this model gives no such value on the split, its outputs are stretched about their mean, in steps of a tenth, until
    the first one falls outside; the sentence then says so.

    Args:
        run: with the regression objective.
        split: whose images are scored.
        which: the run's ``best`` or ``last`` weights.

    Raises:
        MedicError: the run's objective is no regression.
    """
    from sklearn.metrics import f1_score

    model, rows = run.model(which), rows_of(run, split)
    if not isinstance(model.objective, Regression):
        raise MedicError(f"the run {run.folder} has no regression outputs; give a run with the regression objective")
    grades = _raw(model, run.prepared, rows)[:, 0]
    top, labels, stretch = len(run.task.classes) - 1, rows["label"].to_numpy(), 1.0

    def outside(values: np.ndarray) -> float:
        return float(((values < 0) | (values > top)).mean())

    rounded, own = np.rint(grades), outside(np.rint(grades))
    while not outside(rounded) and stretch < 20 and np.ptp(grades) > 0:
        stretch = round(stretch + 0.1, 1)
        rounded = np.rint(grades.mean() + (grades - grades.mean()) * stretch)
    scores = [float(f1_score(labels, d.astype(int), average="macro")) for d in (rounded.clip(0, top), rounded)]
    said = f"{own:.1%} of {len(rows)} outputs lie outside 0 to {top} when rounded."
    if stretch > 1:
        said = (
            f"None of this model's {len(rows)} outputs lies outside 0 to {top} when rounded: on this data the mistake "
            f"costs nothing. Stretched {stretch:g} times about their mean, {outside(rounded):.1%} do; the figures are "
            "for that."
        )
    return Mistake(
        "rounded, but not clipped to the scale",
        f"macro F1, {split}" + (f", outputs stretched {stretch:g} times" if stretch > 1 else " split"),
        scores[0],
        scores[1],
        f"{said} scikit-learn counts each such value as a class of its own.",
        {"share_outside": own, "stretch": stretch, "share_outside_as_scored": outside(rounded)},
    )


def weights_never_loaded(run: Run, split: str = "validation", which: str = "best", *, seed: int = 0) -> Mistake:
    """A weight file whose keys carry another prefix, loaded with ``strict=False``: a random network is scored.

    Args:
        run: its weights are the ones that do not arrive.
        split: whose images are scored.
        which: the run's ``best`` or ``last`` weights.
        seed: of the random weights.
    """
    model, rows = run.model(which), rows_of(run, split)
    wrapped = {f"module.{key}": value for key, value in model.backbone.state_dict().items()}
    empty = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        empty.backbone = backbone(model.backbone_name, model.objective.outputs(run.task), None, model.image_size)
    missing = empty.backbone.load_state_dict(wrapped, strict=False).missing_keys
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        save_file({key: value.contiguous() for key, value in wrapped.items()}, Path(folder) / "model.safetensors")
        refused = _refuses(Path(folder))
    scored = {}
    for name, network in (("trained", model), ("random", empty.eval())):
        decided = np.concatenate([network.predict_pixels(p).decided for p in _batches(model, run.prepared, rows)])
        confusion = confusion_matrix(rows["label"].to_numpy(), decided, len(run.task.classes))
        scored[name] = (float(quadratic_weighted_kappa(confusion)), float(macro_f1(confusion)))
    (kappa, f1), (kappa_random, f1_random) = scored["trained"], scored["random"]
    return Mistake(
        "scoring weights that never loaded",
        f"{KAPPA}, {split} split",
        kappa,
        kappa_random,
        f"{len(missing)} of {len(wrapped)} weights were missing, and strict=False said nothing: macro F1 "
        f"{f1_random:.2f} instead of {f1:.2f}. Classifier.load {'refuses' if refused else 'accepts'} this file.",
        {
            "missing_keys": len(missing),
            "macro_f1_trained": f1,
            "macro_f1_random": f1_random,
            "refused_by_medic": float(refused),
        },
    )


def majority_praised(records: pd.DataFrame, task: Task, split: str = "validation") -> Mistake:
    """The most frequent training label given to every image, and praised for its accuracy."""
    rows = records[records["split"] == split]
    majority = int(records.loc[records["split"] == "train", "label"].mode()[0])
    confusion = confusion_matrix(rows["label"].to_numpy(), np.full(len(rows), majority), len(task.classes))
    kappa, f1, share = (float(metric(confusion)) for metric in (quadratic_weighted_kappa, macro_f1, accuracy))
    return Mistake(
        "accuracy on imbalanced data",
        f"always {task.classes[majority]!r}: macro F1, and accuracy instead",
        f1,
        share,
        f"Always {task.classes[majority]!r} is right for {share:.0%} of the {split} images, with a macro F1 of "
        f"{f1:.2f} and a kappa of {kappa:.2f}: it has found nobody who is ill.",
        {"accuracy": share, "macro_f1": f1, "quadratic_weighted_kappa": kappa},
    )


def _batches(model: Classifier, prepared: Prepared, rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """The images as a service gets them: from the original files, uint8 (N, S, S, 3)."""
    names = list(rows["image"])
    for start in range(0, len(names), _BATCH):
        originals = (prepared.store.read(name) for name in names[start : start + _BATCH])
        yield np.stack([model.preprocessing.pixels(data) for data in originals])


@torch.inference_mode()
def _raw(model: Classifier, prepared: Prepared, rows: pd.DataFrame) -> np.ndarray:
    """What the network puts out before the objective decodes it, float32 (N, outputs)."""
    raw = [model.backbone(model.inputs(torch.from_numpy(p))).float() for p in _batches(model, prepared, rows)]
    return torch.cat(raw).numpy()


def _refuses(folder: Path) -> bool:
    try:
        Classifier.load(folder)
    except MedicError:
        return True
    return False
