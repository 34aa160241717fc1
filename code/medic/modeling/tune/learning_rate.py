"""The learning-rate range test: raise the rate from step to step, and see where the loss falls and where it breaks."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.tuner import Tuner, lr_finder
from matplotlib.figure import Figure
from torch import Tensor

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import training_images
from medic.modeling.training.loading import Batch
from medic.modeling.training.module import Training
from medic.modeling.training.recipe import Recipe
from medic.plots import training as training_plots

SMOOTHING = 0.04
"""Width of the smoothing (a standard deviation), as a share of the range on its logarithmic scale."""


@dataclass(frozen=True, eq=False, repr=False)
class LearningRates:
    """The loss while the learning rate rose.

    Attributes:
        rates: float64 (N,), rising.
        losses: float64 (N,), of one batch each, before the step with that rate; finite.
        synthetic: whether the images are generated.
    """

    rates: np.ndarray
    losses: np.ndarray
    synthetic: bool = False

    def table(self) -> pd.DataFrame:
        """One row a step: ``learning_rate``, ``loss`` of its batch and ``smoothed`` loss."""
        return pd.DataFrame({"learning_rate": self.rates, "loss": self.losses, "smoothed": self.smoothed})

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The losses as a moving average with Gaussian weights, float64 (N,): single batches scatter widely."""
        place = np.linspace(0, 1, len(self.rates))
        weights = np.exp(-0.5 * ((place[:, None] - place) / SMOOTHING) ** 2)
        return (weights @ self.losses) / weights.sum(axis=1)

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest: beyond it the training breaks; an upper limit, no choice."""
        return float(self.rates[np.argmin(self.smoothed)])

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply over the logarithm of the rate."""
        slope = np.gradient(self.smoothed, np.log10(self.rates))
        return float(self.rates[np.argmin(slope[: max(2, np.argmin(self.smoothed) + 1)])])

    def plot(self) -> Figure:
        """Loss over learning rate, with the suggestion."""
        return training_plots.learning_rates(self.table(), self.suggestion, self.lowest)

    def __repr__(self) -> str:
        return f"<LearningRates: steepest at {self.suggestion:.1e}, lowest at {self.lowest:.1e}>"

    def _repr_html_(self) -> str:
        drawn = " (synthetic images)" if self.synthetic else ""
        return (
            f"<b>Learning rates</b>{drawn}: the loss falls most steeply at {self.suggestion:.1e} and is lowest at "
            f"{self.lowest:.1e}; {len(self.rates)} steps from {self.rates[0]:.0e} to {self.rates[-1]:.0e}"
        )


class _Sweep(Training):
    """Notes the loss of every step. Lightning's own list divides the first of them by too much, and smooths late."""

    def __init__(self, *given: object):
        super().__init__(*given)
        self.losses: list[float] = []

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """The loss of one step."""
        loss = super().training_step(batch, number)
        self.losses.append(float(loss.detach()))
        return loss

    def on_train_epoch_end(self) -> None:
        """Nothing: the losses of the steps are all that counts."""


def find_learning_rate(
    model: Classifier,
    prepared: Prepared,
    recipe: Recipe | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> LearningRates:
    """Train a copy of the model for a few steps, each with a higher rate than the one before.

    The learning rate range test (Smith, arXiv 1506.01186, section 3.3), run by Lightning's tuner, with the optimizer,
    batch size and augmentation of the recipe. It ends early where the loss explodes. The model itself stays as it is,
    and so does torch's random generator.

    Args:
        model: the classifier as a training would start with it.
        prepared: the prepared set; only its training split is read.
        recipe: how it is going to be trained; its own learning rate, schedule and averaging do not matter.
        low: the first rate.
        high: the last rate.
        steps: how many, evenly spread on a logarithmic scale.

    Raises:
        MedicError: the range is none, or the loss falls at no rate in it.
    """
    recipe = (recipe or Recipe()).resolved(model.task)
    if not 0 < low < high or steps < 20:
        raise MedicError(
            f"learning rates from {low:g} to {high:g} in {steps} steps cannot be tested; give a range that rises, from "
            "above 0, and at least 20 steps"
        )
    model = copy.deepcopy(model)
    recipe = replace(recipe, schedule="steps", compile=False)
    batches = training_images(model, prepared, recipe)
    training = _Sweep(model, recipe, {"train": len(batches.dataset)})
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), _quiet():
        trainer = lightning.Trainer(
            devices=1,
            accelerator="auto",
            max_epochs=math.ceil(steps / len(batches)),
            precision=recipe.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        found = {"min_lr": low, "max_lr": high, "num_training": steps, "update_attr": False}
        Tuner(trainer).lr_find(training, batches, **found)
    ratio = (high / low) ** (1 / steps)
    losses = np.array(training.losses)
    rates = low * ratio ** np.arange(len(losses))
    finite = np.isfinite(losses)
    tested = LearningRates(rates[finite], losses[finite], prepared.synthetic)
    check_falls(tested)
    return tested


def check_falls(tested: LearningRates) -> None:
    """Refuse a curve that only rises, or that wavers no more than its batches scatter.

    Raises:
        MedicError: no learning rate can be read from it.
    """
    if len(tested.losses) >= 20:
        smoothed = tested.smoothed
        fall = smoothed[: len(smoothed) // 10].mean() - smoothed.min()
        before = max(len(smoothed) // 10, int(np.argmin(smoothed)))
        scatter = np.std((tested.losses - smoothed)[:before])
        together = max(1.0, 2 * math.sqrt(math.pi) * SMOOTHING * len(smoothed))  # batches in one smoothed value
        if fall > max(2.5 * scatter / math.sqrt(together), 1e-6):  # rounding is no fall
            return
    raise MedicError(
        f"the loss falls at no learning rate from {tested.rates[:1].sum():.0e} on; look at the images and labels, "
        "start at a lower rate, take more steps or larger batches, or see whether all that could learn is frozen"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's progress bar, which cannot be switched off otherwise, and its advice."""
    shown = lr_finder.tqdm
    lr_finder.tqdm = functools.partial(shown, disable=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*number of training batches.*")
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        lr_finder.tqdm = shown
