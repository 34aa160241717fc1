"""Training, with Lightning underneath; a run that was killed goes on and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from medic.data.prepare import Prepared
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.augment import Augmentation
from medic.modeling.classifier import Classifier
from medic.modeling.load import Batch, EpochSampler, PreparedDataset, loader
from medic.modeling.metrics import confusion_matrix, metrics_for
from medic.modeling.run import Run

RECALIBRATION_IMAGES = 128
"""Training images, about, from which the statistics of batch normalisation are estimated after each epoch."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedule (Smith & Topin, arXiv 1708.07120).
        weight_decay: of AdamW (Loshchilov & Hutter, arXiv 1711.05101).
        augmentation: how training images are varied; None not at all.
        balanced: draw training images so that every class is equally likely.
        seed: of the order and the augmentation. (The initial weights are the model's own.)
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` is bf16 where the processor computes in it.
        workers: processes that load images; 0 loads in the training process.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    balanced: bool = False
    seed: int = 0
    precision: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise MedicError("a recipe needs at least one epoch, one image a batch and a learning rate above 0")

    def to_dict(self) -> dict:
        """What decides the result, as plain values for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "workers"}
        return values | {"augmentation": None if self.augmentation is None else self.augmentation.to_dict()}


def fit(
    model: Classifier,
    prepared: Prepared,
    folder: str | os.PathLike,
    recipe: Recipe | None = None,
    watch: tuple[str, ...] = (),
) -> Run:
    """Train a model; the best epoch on the validation split is kept.

    After every epoch all that is needed to go on is written. Started again with the same settings, an interrupted
    run continues with the epoch it was in, and a finished one is returned as it is.

    Args:
        model: a new classifier; trained in place.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the run goes.
        recipe: how to train; the defaults when None.
        watch: further splits whose figures are drawn by epoch. They are looked at, and decide nothing.

    Returns:
        The finished run.

    Raises:
        MedicError: the prepared set fits neither task nor preprocessing of the model, a split is missing, or the folder
            holds a run with other settings.
    """
    recipe = recipe or Recipe()
    if model.preprocessing != prepared.preprocessing:
        raise MedicError(
            f"the model expects images prepared with {model.preprocessing}, the set {prepared.folder} was made with "
            f"{prepared.preprocessing}; build the model with preprocessing=prepared.preprocessing"
        )
    folder = Path(folder)
    for split in ("train", "validation", *watch):
        prepared.split(split)
    highest = prepared.records["label"].max()
    if highest >= len(model.task.classes):
        raise MedicError(
            f"the set {prepared.folder} has the label {highest}, the task {model.task.name!r} of the model has only "
            f"{len(model.task.classes)} classes; build the model for the task of the set"
        )
    recipe = replace(recipe, precision=_precision(recipe.precision))
    settings = {
        "model": model.to_dict(),
        "recipe": recipe.to_dict(),
        "start": model.digest,
        "watch": list(watch),
        "data": _digest(prepared.records),
    }
    earlier = Run.peek(folder)
    if earlier is not None and earlier.about["settings"] != settings:
        raise MedicError(
            f"{folder} holds a run with other settings ({_difference(earlier.about['settings'], settings)}); "
            "choose another folder, or delete that one"
        )
    if earlier is not None and earlier.finished:
        return earlier
    about = {
        "settings": settings,
        "finished": False,
        "prepared": Path(os.path.relpath(prepared.folder, folder)).as_posix(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "versions": {name: importlib.metadata.version(name) for name in ("medic", "torch", "torchvision", "lightning")},
    }
    write_json(folder / "run.json", about)
    with replacing(folder / "records.csv") as temporary:
        prepared.records.to_csv(temporary, index=False)

    history = _train(model, prepared, folder, recipe, watch)
    model.eval().save(folder / "last")
    best = int(history.loc[history[_decider(model)].idxmax(), "epoch"])
    write_json(folder / "run.json", about | {"finished": True, "best_epoch": best, "seconds": history["seconds"].sum()})
    (folder / "resume.ckpt").unlink(missing_ok=True)
    return Run.load(folder)


def _train(model: Classifier, prepared: Prepared, folder: Path, recipe: Recipe, watch: tuple[str, ...]) -> pd.DataFrame:
    training = PreparedDataset(prepared, "train", recipe.augmentation, model.image_size, recipe.seed)
    sampler = EpochSampler(training.rows["label"].to_numpy(), model.task, recipe.seed, recipe.balanced)
    watched = ("validation", *(split for split in watch if split != "validation"))
    keeper = _Keeper(folder)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    recalibrating = loader(training, recipe.batch_size, EpochSampler(sampler.labels, model.task, recipe.seed + 1))
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        callbacks=[keeper],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    resume = folder / "resume.ckpt"
    with _interruptible(trainer), warnings.catch_warnings():
        # The advice on worker processes is for big images; ours are small, and the recipe says how many to use.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        trainer.fit(
            _Training(model, recipe, watched, recalibrating),
            loader(training, recipe.batch_size, sampler, recipe.workers),
            [loader(PreparedDataset(prepared, split), recipe.batch_size, None, recipe.workers) for split in watched],
            ckpt_path=resume if resume.is_file() else None,
            weights_only=True,
        )
    return pd.DataFrame(keeper.rows)


@contextlib.contextmanager
def _interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Let an interrupt from the keyboard stop the training alone.

    Lightning ends the whole program on it and is deaf to any further one, which a notebook would not survive.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


class _Training(lightning.LightningModule):
    """What Lightning runs: the loss of a step, and the confusion matrix of each split by epoch."""

    def __init__(self, model: Classifier, recipe: Recipe, watched: tuple[str, ...], recalibrating: DataLoader):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.splits = ("train", *watched)
        self.recalibrating = recalibrating
        self.outcomes: dict[str, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}

    def on_train_epoch_start(self) -> None:
        self.outcomes = {split: [] for split in self.splits}

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        """Estimate the statistics of batch normalisation anew, with the weights as they are now.

        The running averages trail behind the weights. Where an epoch has few steps, that alone can bring a trained
        network down to chance on any image it sees in evaluation mode ("precise" statistics; Wu & Johnson, arXiv
        2105.07576, section 3).
        """
        layers = [layer for layer in self.model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        batches = -(-RECALIBRATION_IMAGES // self.recipe.batch_size)
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over all that follows
            layer.train()
        for batch in islice(self.recalibrating, batches if layers else 0):
            with self.trainer.precision_plugin.forward_context():
                self._raw(batch.images.to(self.device))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    def _raw(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.backbone(self.model.inputs(images).contiguous(memory_format=torch.channels_last)).float()

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        # Whatever layers draw (dropout) depends on the step alone, not on what ran before an interruption. Once an
        # epoch would not do: Lightning starts the loader, which draws too, before or after that by turns.
        torch.manual_seed(self.recipe.seed * 100_003 + self.global_step)
        return self._step("train", batch)

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        self._step(self.splits[1 + dataloader_idx], batch)

    def _step(self, split: str, batch: Batch) -> torch.Tensor:
        raw = self._raw(batch.images)
        loss = self.model.objective.loss(raw, batch.labels)
        probabilities = self.model.objective.decode(raw.detach(), self.model.task)[0]
        self.outcomes[split].append((loss.detach(), batch.labels, probabilities.argmax(dim=1)))
        return loss

    def figures(self, split: str) -> dict[str, float]:
        """Loss and metrics of the epoch that has just ended."""
        losses, labels, decided = zip(*self.outcomes[split], strict=True)
        sizes = np.array([len(part) for part in labels])
        confusion = confusion_matrix(
            torch.cat(labels).cpu().numpy(), torch.cat(decided).cpu().numpy(), len(self.model.task.classes)
        )
        values = {"loss": float(np.average([float(loss) for loss in losses], weights=sizes))}
        values |= {name: float(metric(confusion)) for name, metric in metrics_for(self.model.task).items()}
        return {f"{split}_{name}": value for name, value in values.items()}

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Keeper(Callback):
    """Keeps what an epoch brought: its line of the history, the best weights, and all that is needed to go on."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict] = []
        self._started = 0.0

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]
        print(f"going on after epoch {len(self.rows)}")

    def on_train_epoch_start(self, trainer: lightning.Trainer, training: _Training) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, training: _Training) -> None:
        row = {"epoch": trainer.current_epoch + 1}
        for split in training.splits:
            row |= training.figures(split)
        decider = _decider(training.model)
        best = all(row[decider] > earlier[decider] for earlier in self.rows)
        if best:
            training.model.save(self.folder / "best")
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        with replacing(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        with replacing(self.folder / "resume.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        images = sum(len(labels) for _, labels, _ in training.outcomes["train"])
        metric = decider.rpartition("_")[2]
        print(
            f"epoch {row['epoch']:>3}/{trainer.max_epochs}  loss {row['train_loss']:.3f}  accuracy train "
            f"{row['train_accuracy']:.3f} validation {row['validation_accuracy']:.3f}  {metric} {row[decider]:.3f}"
            f"{' *' if best else '  '} {row['seconds']:.1f} s, {images / row['seconds']:.0f} images/s",
            flush=True,
        )


def _decider(model: Classifier) -> str:
    """The column of the history by which the best epoch is chosen."""
    return f"validation_{list(metrics_for(model.task))[-1]}"


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def _digest(records: pd.DataFrame) -> str:
    columns = records[["image", "file", "split", "label"]]
    return hashlib.sha256(columns.to_csv(index=False).encode()).hexdigest()[:16]


def _difference(earlier: dict, now: dict) -> str:
    """The first settings that differ, for a person."""
    if earlier.keys() != now.keys():
        return "another version of medic wrote it"
    flat = [
        {f"{part}.{key}": value for part in ("model", "recipe") for key, value in s[part].items()}
        for s in (earlier, now)
    ]
    changed = [
        f"{key} {flat[0].get(key)} there, {flat[1][key]} here" for key in flat[1] if flat[0].get(key) != flat[1][key]
    ]
    if earlier["data"] != now["data"]:
        changed.append("other images or another split")
    if earlier["start"] != now["start"]:
        changed.append(
            "other initial weights: name the same ones, and call torch.manual_seed before building the model"
        )
    if earlier["watch"] != now["watch"]:
        changed.append(f"watch {earlier['watch']} there, {now['watch']} here")
    return "; ".join(changed[:3])
