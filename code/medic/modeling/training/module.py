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

from medic.modeling.classifier import Classifier, parts
from medic.modeling.metrics import metrics_for, score
from medic.modeling.training.distributed import Processes
from medic.modeling.training.loading import Batch
from medic.modeling.training.recipe import Recipe
from medic.task import Prediction

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
        # Lightning trains a model in the mode that it comes in, and one that was asked before evaluates.
        self.model = model.to(memory_format=torch.channels_last).train()
        self.recipe = recipe
        self.images = images
        self.splits = tuple(images)
        self.recalibrating = recalibrating
        self.processes = processes
        self.outcomes: dict[str, list[tuple[Tensor, Tensor, tuple[Tensor, ...]]]] = {}
        self._frozen = _freeze(model, recipe.frozen)
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
        """Forget the last epoch, and keep frozen layers from following the batches' statistics."""
        self.outcomes = {split: [] for split in self.splits}
        for layer in self._frozen:
            layer.eval()

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        """Estimate the statistics of batch normalisation anew, with the weights as they are now.

        The running averages trail behind the weights. Where an epoch has few steps, that alone can bring a trained
        network down to chance on any image it sees in evaluation mode ("precise" statistics; Wu & Johnson, arXiv
        2105.07576, section 3). Each process does it with the same images and comes to the same statistics.
        """
        frozen = {id(layer) for part in parts(self.kept, self.recipe.frozen) for layer in part.modules()}
        layers = [
            layer
            for layer in self.kept.modules()
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and id(layer) not in frozen
        ]
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
        """The loss of a whole batch; it, the labels and the predictions are kept for the figures of the epoch."""
        total = min(self.recipe.batch_size, self.images[split] - number * self.recipe.batch_size)
        raw, labels = self.processes.together(own, total), self.processes.together(labels, total)
        loss = model.objective.loss(raw, labels)
        self.outcomes[split].append((loss.detach(), labels, model.objective.decode(raw.detach(), model.task)))
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Move the averaged weights."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def figures(self, split: str) -> dict[str, float]:
        """Loss and metrics of the epoch that has just ended."""
        losses, labels, outputs = zip(*self.outcomes[split], strict=True)
        sizes = np.array([len(part) for part in labels])
        truth = torch.cat(labels).cpu().numpy()
        prediction = Prediction(
            self.model.task, *(torch.cat(parts).cpu().numpy() for parts in zip(*outputs, strict=True))
        )
        values = {"loss": float(np.average([float(loss) for loss in losses], weights=sizes))}
        values |= {name: score(metric, truth, prediction) for name, metric in metrics_for(self.model.task).items()}
        return {f"{split}_{name}": value for name, value in values.items()}

    def configure_optimizers(self) -> dict:
        """AdamW and the schedule of its learning rate, by steps."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            amsgrad=recipe.amsgrad,
            fused=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        if recipe.schedule == "one_cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
        elif recipe.schedule == "cycles":
            length = -(-steps // recipe.cycles)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: (1 + math.cos(math.pi * (step % length) / length)) / 2
            )
        else:
            # Counted in steps, not in epochs: Lightning turns an epoch's page only after resume.ckpt is written.
            milestones = [math.ceil(recipe.epochs * third / 3) * steps // recipe.epochs for third in (1, 2)]
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _freeze(model: Classifier, names: tuple[str, ...]) -> list[torch.nn.Module]:
    """Keep parts of the network as they are: no gradient, no weight decay, no statistics of batches."""
    frozen = parts(model, names)
    for part in frozen:
        part.requires_grad_(False)
    return frozen
