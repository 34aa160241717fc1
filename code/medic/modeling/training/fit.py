"""Training, with Lightning underneath; a run that was killed goes on and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from medic.data.prepare import Prepared
from medic.data.records import targets
from medic.data.split import refuse_crossing
from medic.errors import MedicError
from medic.files import replacing, write_json
from medic.modeling.classifier import Classifier, parts
from medic.modeling.metrics import metrics_for, score
from medic.modeling.objectives import objective_from_dict
from medic.modeling.thresholds import fit_cut_points, thresholds_for
from medic.modeling.training.distributed import Processes, join
from medic.modeling.training.loading import EpochSampler, PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run, difference, digest_of, json_values, written_by
from medic.task import Prediction, Task

if TYPE_CHECKING:
    import lightning

    from medic.modeling.training.callbacks import EpochRecorder


def fit(
    model: Classifier,
    prepared: Prepared,
    folder: str | os.PathLike,
    recipe: Recipe | None = None,
    watch: tuple[str, ...] = (),
    each_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train a model; the best epoch on the validation split is kept.

    After every epoch all that is needed to go on is written. Started again with the same settings, an interrupted
    run continues with the epoch it was in, and a finished one is returned as it is. Called by several processes that
    ``torchrun`` has started, on one machine or more, they train together (docs/distributed_training.md).

    Args:
        model: a new classifier; trained in place.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the run goes.
        recipe: how to train; the defaults when None.
        watch: further splits whose figures are drawn by epoch. They are looked at, and decide nothing.
        each_epoch: called with the epoch's line of the history, such as ``{"epoch": 1, "validation_auroc": 0.7, ...}``,
            when all of the epoch is written; in every process. What it raises ends the training and comes out of here,
            and the run is left as an interruption leaves it.

    Returns:
        The finished run.

    Raises:
        MedicError: the prepared set fits neither task nor preprocessing of the model, a split is missing or shares a
            patient with another, the folder holds a run with other settings, the recipe does not suit the model, or the
            processes do not agree.
    """
    recipe = recipe or Recipe()
    processes = join()
    if model.preprocessing != prepared.preprocessing:
        raise MedicError(
            f"the model expects images prepared with {model.preprocessing}, the set {prepared.folder} was made with "
            f"{prepared.preprocessing}; build the model with preprocessing=prepared.preprocessing"
        )
    folder = Path(folder)
    for split in ("train", "validation", *watch):
        prepared.split(split)
    refuse_crossing(prepared.records)
    highest = targets(prepared.records, model.task).max()
    if highest >= len(model.task.classes):
        raise MedicError(
            f"the set {prepared.folder} has the label {highest}, the task {model.task.name!r} of the model has only "
            f"{len(model.task.classes)} classes; build the model for the task of the set"
        )
    if recipe.batch_size % processes.count:
        raise MedicError(
            f"{recipe.batch_size} images a step cannot be shared evenly by {processes.count} processes; take a batch "
            "size that is a multiple of their number"
        )
    recipe = recipe.resolved(model.task)
    parts(model, recipe.frozen)
    _check_chooser(targets(prepared.split("validation"), model.task), recipe, model.task)
    settings = json_values(
        {
            "model": model.to_dict(),
            "recipe": recipe.to_dict(),
            "start": model.digest,
            "watch": list(watch),
            "data": digest_of(prepared.records, model.task),
        }
    )
    earlier = Run.peek(folder)
    if earlier is not None and (there := _completed(earlier.about["settings"])) != settings:
        raise MedicError(
            f"{folder} holds a run with other settings ({difference(there, settings)}); "
            "choose another folder, or delete that one"
        )
    resume = folder / "resume.ckpt"
    state = {"settings": settings, "finished": earlier is not None and earlier.finished, "resume": resume.is_file()}
    processes.agree({"the settings of the training": state["settings"], f"the content of {folder}": state})
    if state["finished"]:
        return earlier
    about = {
        "settings": settings,
        "finished": False,
        "prepared": Path(os.path.relpath(prepared.folder, folder)).as_posix(),
        "processes": processes.count,
        **written_by("medic", "torch", "torchvision", "lightning"),
    }
    if processes.first:
        write_json(folder / "run.json", about)
        with replacing(folder / "records.csv") as temporary:
            prepared.records.to_csv(temporary, index=False)

    # Lightning takes seconds to import, and only a training needs it.
    from medic.modeling.training.callbacks import EpochRecorder

    recorder = EpochRecorder(
        folder, recipe.decider, recipe.epochs // recipe.cycles if recipe.schedule == "cycles" else None, each_epoch
    )
    history = _train(model, prepared, recipe, watch, processes, recorder)
    if processes.first:
        _finish(model, prepared, folder, recipe, about, history)
    processes.wait()
    return Run.load(folder)


def _finish(
    model: Classifier, prepared: Prepared, folder: Path, recipe: Recipe, about: dict, history: pd.DataFrame
) -> None:
    model.eval().save(folder / "last")
    for which in ("best", "last", *Run(folder, about).snapshots):
        decide(folder / which, prepared, model.task, recipe)
    best = int(history.loc[history[recipe.decider].fillna(-np.inf).idxmax(), "epoch"])
    write_json(folder / "run.json", about | {"finished": True, "best_epoch": best, "seconds": history["seconds"].sum()})
    (folder / "resume.ckpt").unlink(missing_ok=True)


def _check_chooser(truth: np.ndarray, recipe: Recipe, task: Task) -> None:
    """Refuse before training what would fail after it: figures that this validation split does not have."""
    if not task.thresholds:
        return
    nothing = Prediction(task, np.full((len(truth), len(task.classes)), 0.5, np.float32))
    if recipe.choose_by != "last" and np.isnan(score(metrics_for(task)[recipe.choose_by], truth, nothing)):
        raise MedicError(
            f"the best epoch cannot be chosen by {recipe.choose_by}: the validation split has not both images with and "
            f"images without a class of {task.name!r}; give it more patients, or choose_by='last'"
        )
    if recipe.sensitivity is not None and not truth.any():
        raise MedicError(
            f"no operating point can be chosen: the validation split has no image with a class of {task.name!r}; give "
            "it more patients, or leave sensitivity away"
        )


def decide(checkpoint: Path, prepared: Prepared, task: Task, recipe: Recipe) -> None:
    """Choose on the validation split how a kept model decides, where the recipe asks: into its ``model.json``."""
    if recipe.cut_points is None and recipe.sensitivity is None:
        return
    model = Classifier.load(checkpoint, task).to("cuda" if torch.cuda.is_available() else "cpu")
    data = PreparedDataset(prepared, "validation", task=task)
    batches = loader(data, recipe.batch_size, None, recipe.workers)
    prediction = Prediction.joined([model.predict_pixels(batch.images.numpy()) for batch in batches])
    if recipe.cut_points is not None:
        cuts = fit_cut_points(prediction.grade, data.labels, task, recipe.cut_points)
        model.objective = replace(model.objective, cuts=cuts)
        print(f"cut points of the {checkpoint.name} model: {', '.join(f'{cut:.2f}' for cut in cuts)}")
    else:
        model.thresholds = thresholds_for(data.labels, prediction, recipe.sensitivity)
        shown = ", ".join(f"{threshold:.3f}" for threshold in model.thresholds)
        print(f"operating point of the {checkpoint.name} model, sensitivity {recipe.sensitivity:g}: from {shown} on")
        absent = () if task.kind != "multilabel" else np.array(task.classes)[~data.labels.any(axis=0)]
        if len(absent):
            print(f"no validation image has {', '.join(absent)}: decided at 0.5")
    write_json(checkpoint / "model.json", model.to_dict())


def _train(
    model: Classifier,
    prepared: Prepared,
    recipe: Recipe,
    watch: tuple[str, ...],
    processes: Processes,
    recorder: EpochRecorder,
) -> pd.DataFrame:
    from medic.modeling.training.module import Training

    data, order = training_images(model, prepared, recipe)
    labels, size = data.labels, recipe.batch_size
    watched = ("validation", *(split for split in watch if split != "validation"))
    looked_at = [PreparedDataset(prepared, split, task=model.task) for split in watched]
    images = {"train": len(order)} | {split: len(part) for split, part in zip(watched, looked_at, strict=True)}
    share = size // processes.count  # what fits into one process's memory
    recalibrating = loader(data, share, EpochSampler(labels, model.task, recipe.seed + 1, batch_size=share))
    training = Training(model, recipe, images, recalibrating, processes)
    trainer = _trainer(recorder.folder, recipe, processes, recorder)
    resume = recorder.folder / "resume.ckpt"
    with interruptible(trainer), warnings.catch_warnings():
        # The advice on worker processes is for big images; ours are small, and the recipe says how many to use.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        trainer.fit(
            training,
            loader(data, size, order, recipe.workers, processes),
            [loader(part, size, None, recipe.workers, processes) for part in looked_at],
            ckpt_path=resume if resume.is_file() else None,
            weights_only=True,
        )
    if training.kept is not model:
        model.load_state_dict(training.kept.state_dict())
    return pd.DataFrame(recorder.rows)


def training_images(model: Classifier, prepared: Prepared, recipe: Recipe) -> tuple[PreparedDataset, EpochSampler]:
    """The training split as a recipe (resolved for this machine) shows it to a model, and the order of each epoch."""
    data = PreparedDataset(
        prepared,
        "train",
        recipe.augmentation,
        model.image_size,
        recipe.seed,
        bool(recipe.device_augmentation),
        model.task,
    )
    return data, EpochSampler(data.labels, model.task, recipe.seed, recipe.balanced, recipe.batch_size)


def _trainer(folder: Path, recipe: Recipe, processes: Processes, recorder: EpochRecorder) -> lightning.Trainer:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    several = {}
    if processes.count > 1:
        share = recipe.batch_size // processes.count
        if processes.first:
            print(f"{recipe.batch_size} images a step: {processes.count} processes x {share}", flush=True)
        several = {"devices": processes.on_machine, "num_nodes": processes.machines, "strategy": "ddp"}
    return lightning.Trainer(
        **{"devices": 1} | several,
        accelerator="auto",
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


@contextlib.contextmanager
def interruptible(trainer: lightning.Trainer) -> Iterator[None]:
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


def _completed(earlier: dict) -> dict:
    """The settings of a run, with those that did not exist yet when it was trained at what was done then."""
    if not {"model", "recipe"} <= earlier.keys():
        return earlier
    chosen_by = list(metrics_for(Task.from_dict(earlier["model"]["task"])))[-1]
    recipe = Recipe().to_dict() | {"device_augmentation": False, "choose_by": chosen_by} | earlier["recipe"]
    model = {"flips": False, "contrast": None, "dropout": None, "thresholds": None} | earlier["model"]
    model["preprocessing"] = {"grey": False} | model["preprocessing"]
    model["objective"] = objective_from_dict(model["objective"]).to_dict()
    return json_values(earlier | {"model": model, "recipe": recipe})
