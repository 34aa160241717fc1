"""What an epoch leaves behind: its line of the history, the best weights, and all that is needed to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from medic.files import replacing
from medic.modeling.training.module import Training

INPUT_BOUND = 0.3
"""Share of the training time spent waiting for images from which on the reader is told what to do about it."""


class EpochRecorder(Callback):
    """Writes and prints after every epoch, in the first of the processes.

    Args:
        folder: the run's.
        decider: column of the history by which the best epoch is chosen; higher is better.
        every: epochs after each of which the weights are kept as a snapshot; None keeps none.
        tell: called with each row when the epoch is written, in every process; what it raises ends the training.

    Attributes:
        rows: the history so far, one row an epoch.
    """

    def __init__(
        self,
        folder: Path,
        decider: str,
        every: int | None = None,
        tell: Callable[[dict[str, float]], None] | None = None,
    ):
        self.folder = folder
        self.decider = decider
        self.every = every
        self.tell = tell
        self.rows: list[dict] = []
        self._started = self._since = self._trained = self._waited = 0.0
        self._told = False

    def state_dict(self) -> dict:
        """What goes into ``resume.ckpt``."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        """What came out of it."""
        self.rows = state["rows"]

    def on_train_start(self, trainer: lightning.Trainer, training: Training) -> None:
        """Say where a resumed training goes on."""
        if self.rows and trainer.is_global_zero:
            print(f"going on after epoch {len(self.rows)}")

    def on_train_epoch_start(self, trainer: lightning.Trainer, training: Training) -> None:
        """Start the clocks."""
        self._started = self._since = time.perf_counter()
        self._waited = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """The time since the last step was spent waiting for this batch."""
        self._waited += time.perf_counter() - self._since

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """A step is done."""
        if trainer.is_last_batch and torch.cuda.is_available():
            torch.cuda.synchronize()  # what is still queued belongs to the epoch's time
        self._since = time.perf_counter()
        self._trained = self._since - self._started

    def on_train_epoch_end(self, trainer: lightning.Trainer, training: Training) -> None:
        """Write and print what the epoch brought."""
        row = {"epoch": trainer.current_epoch + 1}
        for split in training.splits:
            row |= training.figures(split)
        best = all(self._score(row) > self._score(earlier) for earlier in self.rows)
        row["images_per_second"] = training.images["train"] / self._trained
        row["waiting"] = self._waited / self._trained
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(trainer, training, row, best)
        else:
            trainer.save_checkpoint(self.folder / "resume.ckpt")  # writes nothing, and waits for the one that does
        if self.tell is not None:
            self.tell(dict(row))

    def _write(self, trainer: lightning.Trainer, training: Training, row: dict, best: bool) -> None:
        if best:
            training.kept.save(self.folder / "best")
        if self.every and row["epoch"] % self.every == 0:
            training.kept.save(self.folder / f"snapshot-{row['epoch'] // self.every}")
        with replacing(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        with replacing(self.folder / "resume.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        self._print(row, best, trainer.max_epochs)

    def _print(self, row: dict, best: bool, epochs: int) -> None:
        shown = self.decider if self.decider != "epoch" else [name for name in row if name.startswith("validation")][-1]
        print(
            f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.3f}  {self._both(row)}  "
            f"{shown.rpartition('_')[2]} {row[shown]:.3f}"
            f"{' *' if best else '  '} {row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s, "
            f"{row['waiting']:.0%} waiting",
            flush=True,
        )
        if row["waiting"] > INPUT_BOUND and not self._told:
            self._told = True
            print(
                f"{row['waiting']:.0%} of the training time was spent waiting for images: use more workers, or prepare "
                "the set at a smaller size",
                flush=True,
            )

    def _score(self, row: dict) -> float:
        """A figure that validation cannot tell (no image has the finding) is worse than any it can."""
        return -math.inf if math.isnan(row[self.decider]) else row[self.decider]

    def _both(self, row: dict) -> str:
        """The first figure that every task of its kind has, on the training and on the validation images."""
        name = "accuracy" if "train_accuracy" in row else "macro_f1"
        return f"{name.replace('_', ' ')} train {row[f'train_{name}']:.3f} validation {row[f'validation_{name}']:.3f}"
