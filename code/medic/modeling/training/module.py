"""What Lightning runs: the loss of a step, the metrics of an epoch, optimizer, schedule, and what an epoch leaves."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from medic.errors import MedicError
from medic.files import replacing
from medic.modeling.classifier import Classifier, parts
from medic.modeling.metrics import metrics_for, score
from medic.modeling.training.loading import Batch
from medic.modeling.training.recipe import Recipe
from medic.task import Prediction


class Training(lightning.LightningModule):
    """A classifier in training.

    Args:
        model: the classifier; trained in place.
        recipe: how to train; resolved for this machine.
        images: how many images the splits ``train`` and ``validation`` have.
    """

    def __init__(self, model: Classifier, recipe: Recipe, images: dict[str, int]):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last).train()
        self.recipe, self.images = recipe, images
        self.outcomes: dict[str, list[tuple[Tensor, Tensor]]] = {split: [] for split in images}
        self.row: dict[str, float] = {}
        for part in parts(model, recipe.frozen):
            part.eval().requires_grad_(False)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Return the loss of one step."""
        # What layers draw (dropout) depends on the step alone, so that a resumed training draws the same.
        torch.manual_seed(self.recipe.seed * 100_003 + self.global_step + (self.global_rank << 40))
        return self._note("train", batch, self.model.backbone)

    def validation_step(self, batch: Batch, number: int) -> None:
        """Note what the model says of one batch."""
        self._note("validation", batch, self.model.raw)

    def _note(self, split: str, batch: Batch, network: Callable[[Tensor], Tensor]) -> Tensor:
        raw = network(self.model.inputs(batch.images).contiguous(memory_format=torch.channels_last)).float()
        self.outcomes[split].append((batch.labels, raw.detach()))
        return self.model.objective.loss(raw, batch.labels)

    def on_train_epoch_end(self) -> None:
        """Log loss and metrics of both splits, over the images of all processes."""
        self.row = {f"{split}_{name}": value for split in self.images for name, value in self._metrics(split).items()}
        self.log_dict(self.row, sync_dist=True)

    def _metrics(self, split: str) -> dict[str, float]:
        noted = [self.all_gather(torch.cat(part)) for part in zip(*self.outcomes[split], strict=True)]
        self.outcomes[split] = []
        if self.trainer.world_size > 1:  # dealt out in turn, and the first ones again until all have as many
            noted = [part.transpose(0, 1).flatten(0, 1)[: self.images[split]] for part in noted]
        (labels, raw), objective, task = noted, self.model.objective, self.model.task
        loss = float(objective.loss(raw, labels))
        if not math.isfinite(loss):
            raise MedicError(
                f"the training has diverged: its {split} loss is no longer a number; start it in a new folder with a "
                "lower learning rate, or with 32-true precision"
            )
        prediction = Prediction(task, *(part.cpu().numpy() for part in objective.decode(raw, task)))
        metrics = {name: score(metric, labels.cpu().numpy(), prediction) for name, metric in metrics_for(task).items()}
        return {"loss": loss} | metrics

    def configure_optimizers(self) -> dict:
        """AdamW, with a learning rate of its own for the last layer, and the schedule by steps."""
        recipe, network = self.recipe, self.model.backbone
        head = list(network.state_dict())[-1].rpartition(".")[0] + "."
        rates = {False: recipe.learning_rate, True: recipe.learning_rate * recipe.head_factor}
        learning = [(name.startswith(head), one) for name, one in network.named_parameters() if one.requires_grad]
        groups = [{"params": [one for at, one in learning if at == last], "lr": rates[last]} for last in (False, True)]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            weight_decay=recipe.weight_decay,
            amsgrad=recipe.amsgrad,
            fused=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        if recipe.schedule == "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps)
        else:
            milestones = [math.ceil(recipe.epochs * third / 3) * steps // recipe.epochs for third in (1, 2)]
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Checkpoint(ModelCheckpoint):
    """A checkpoint after every epoch, or after the best one; a folder that has moved meanwhile is no other folder."""

    def __init__(self, folder: Path, name: str, monitor: str | None = None):
        super().__init__(folder, name, monitor, mode="max", save_on_train_epoch_end=True, enable_version_counter=False)

    def load_state_dict(self, state: dict) -> None:
        """Go on with what ``resume.ckpt`` says."""
        super().load_state_dict(state | {"dirpath": self.dirpath})


class EpochEnd(Checkpoint):
    """Writes ``history.csv`` and ``resume.ckpt`` after every epoch, and prints one line.

    Args:
        folder: the run's.
        recipe: how the run is trained; resolved.
        each_epoch: called with each row when the epoch is written; what it raises ends the training.
    """

    def __init__(self, folder: Path, recipe: Recipe, each_epoch: Callable[[dict[str, float]], None] | None = None):
        super().__init__(folder, "resume")
        self.history, self.recipe, self.each_epoch = folder / "history.csv", recipe, each_epoch
        self._started = self._trained = 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_start(self, *_: object) -> None:
        """Note how long the training steps took."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what is still queued belongs to them
        self._trained = time.perf_counter() - self._started

    def on_train_epoch_end(self, trainer: lightning.Trainer, training: Training) -> None:
        """Write and print what the epoch brought."""
        epoch, seconds = trainer.current_epoch + 1, time.perf_counter() - self._started
        row = {"epoch": epoch, **training.row}
        row |= {"images_per_second": training.images["train"] / self._trained, "seconds": seconds}
        if trainer.is_global_zero:
            # What a killed process has written of an epoch that is trained again goes.
            earlier = pd.read_csv(self.history, float_precision="round_trip").head(epoch - 1) if epoch > 1 else None
            with replacing(self.history) as temporary:
                pd.concat([earlier, pd.DataFrame([row])]).to_csv(temporary, index=False)
        super().on_train_epoch_end(trainer, training)
        if trainer.is_global_zero:
            name = self.recipe.judged_by(training.model.task)
            print(
                f"epoch {epoch:>3}/{self.recipe.epochs}  loss {row['train_loss']:.3f}  {name.replace('_', ' ')} train "
                f"{row[f'train_{name}']:.3f} validation {row[f'validation_{name}']:.3f}  {seconds:.1f} s, "
                f"{row['images_per_second']:.0f} images/s",
                flush=True,
            )
        if self.each_epoch is not None:
            self.each_epoch(row)
