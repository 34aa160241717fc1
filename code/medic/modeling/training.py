"""What Lightning runs: the loss of a step, the figures of an epoch, optimizer and schedule."""

from __future__ import annotations

import math
from itertools import islice

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from medic.modeling.classifier import Classifier
from medic.modeling.distributed import Processes
from medic.modeling.load import Batch
from medic.modeling.metrics import confusion_matrix, metrics_for
from medic.modeling.recipe import Recipe

RECALIBRATION_IMAGES = 128
"""Training images, about, from which the statistics of batch normalisation are estimated after each epoch."""


class Training(lightning.LightningModule):
    """A classifier in training.

    Args:
        model: the classifier; trained in place.
        recipe: how to train; resolved for this machine.
        images: how many images each split has: ``train``, then the splits that are looked at after each epoch.
        recalibrating: training images from which the statistics of batch normalisation are estimated.
        processes: who takes part.
    """

    def __init__(
        self,
        model: Classifier,
        recipe: Recipe,
        images: dict[str, int],
        recalibrating: DataLoader,
        processes: Processes,
    ):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.images = images
        self.splits = tuple(images)
        self.recalibrating = recalibrating
        self.processes = processes
        self.outcomes: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self.averaged = None
        if recipe.ema is not None:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)).requires_grad_(False)
        # A function, so that no second set of the same weights is registered; and for whole batches alone, because
        # every other size would be compiled anew.
        self._compiled = torch.compile(lambda inputs: model.backbone(inputs), dynamic=False) if recipe.compile else None

    @property
    def kept(self) -> Classifier:
        """The model that is validated and kept: the averaged one where the recipe averages."""
        return self.model if self.averaged is None else self.averaged.module

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch."""
        self.outcomes = {split: [] for split in self.splits}

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        """Estimate the statistics of batch normalisation anew, with the weights as they are now.

        The running averages trail behind the weights. Where an epoch has few steps, that alone can bring a trained
        network down to chance on any image it sees in evaluation mode ("precise" statistics; Wu & Johnson, arXiv
        2105.07576, section 3). Each process does it with the same images and comes to the same statistics.
        """
        layers = [layer for layer in self.kept.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        batches = -(-RECALIBRATION_IMAGES // (self.recipe.batch_size // self.processes.count))
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over all that follows
            layer.train()
        for batch in islice(self.recalibrating, batches if layers else 0):
            with self.trainer.precision_plugin.forward_context():
                moved = Batch(*(None if part is None else part.to(self.device) for part in batch))
                self.kept.backbone(self._inputs(self.kept, moved))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """The loss of one step."""
        # Whatever layers draw (dropout) depends on the step alone, not on what ran before an interruption. Once an
        # epoch would not do: Lightning starts the loader, which draws too, before or after that by turns.
        torch.manual_seed(self.recipe.seed * 100_003 + self.global_step + (self.processes.rank << 40))
        inputs = self._inputs(self.model, batch)
        whole = len(inputs) * self.processes.count == self.recipe.batch_size
        network = self._compiled if self._compiled is not None and whole else self.model.backbone
        own = network(inputs).float()
        loss = self._note("train", self.model, own, batch.labels, number)
        if self.processes.count == 1:
            return loss
        # Each process has the loss of the whole batch, and the gradient of its own images in it. What is wanted is the
        # sum of those gradients, and DistributedDataParallel takes their mean. The 0 lets a process without a share
        # send a gradient too: the others wait for it.
        return loss * self.processes.count + 0 * own.sum()

    def validation_step(self, batch: Batch, number: int, dataloader_idx: int = 0) -> None:
        """Note what the kept model says of one batch."""
        own = self.kept.raw(self._inputs(self.kept, batch)).float()
        self._note(self.splits[1 + dataloader_idx], self.kept, own, batch.labels, number)

    def _inputs(self, model: Classifier, batch: Batch) -> Tensor:
        images = batch.images
        if batch.matrices is not None:
            images = self.recipe.augmentation.apply_batch(images, batch.matrices, batch.tables, model.image_size)
        return model.inputs(images).contiguous(memory_format=torch.channels_last)

    def _note(self, split: str, model: Classifier, own: Tensor, labels: Tensor, number: int) -> Tensor:
        """The loss of a whole batch; it, the labels and the decisions are kept for the figures of the epoch."""
        total = min(self.recipe.batch_size, self.images[split] - number * self.recipe.batch_size)
        raw, labels = self.processes.together(own, total), self.processes.together(labels, total)
        loss = model.objective.loss(raw, labels)
        probabilities = model.objective.decode(raw.detach(), model.task)[0]
        self.outcomes[split].append((loss.detach(), labels, probabilities.argmax(dim=1)))
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Move the averaged weights."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

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
        """AdamW and the schedule of its learning rate, by steps."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            amsgrad=recipe.amsgrad,
            fused=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        if recipe.schedule == "one_cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
        else:
            # Counted in steps, not in epochs: Lightning turns an epoch's page only after resume.ckpt is written.
            milestones = [math.ceil(recipe.epochs * third / 3) * steps // recipe.epochs for third in (1, 2)]
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
