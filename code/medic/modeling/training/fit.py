"""Training, with Lightning underneath; a run that was killed goes on and ends as if nothing had happened."""

import contextlib
import errno
import logging
import os
import pickle
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from medic.data.prepare import Prepared
from medic.data.records import targets
from medic.data.split import refuse_crossing
from medic.errors import MedicError
from medic.modeling.classifier import Classifier, parts
from medic.modeling.metrics import metrics_for, score
from medic.modeling.training.decide import decide
from medic.modeling.training.loading import EpochSampler, PreparedDataset, loader
from medic.modeling.training.recipe import Recipe
from medic.modeling.training.run import Run, begin_run, is_first, processes, settings_of, tracker
from medic.task import Prediction


def fit(
    model: Classifier,
    prepared: Prepared,
    folder: str | os.PathLike,
    recipe: Recipe | None = None,
    each_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train a model; the best epoch on the validation split is kept.

    Started again with the same settings, an interrupted run continues with the epoch it was in, and a finished one is
    returned as it is. Processes that ``torchrun`` has started train together (docs/distributed_training.md).

    Args:
        model: a new classifier; trained in place.
        prepared: the prepared set; needs the splits ``train`` and ``validation``.
        folder: where the run goes.
        recipe: how to train; the defaults when None.
        each_epoch: called with the epoch's line of the history, such as ``{"epoch": 1, "validation_auroc": 0.7, ...}``,
            when it is written; what it raises interrupts the run.

    Returns:
        The finished run.

    Raises:
        MedicError: the prepared set fits neither task nor preprocessing of the model, a split is missing or shares a
            patient with another, the recipe does not suit the model, the loss is no longer a number, what an
            interrupted run left is damaged, or the folder is in use or holds a run with other settings.
    """
    recipe, folder = (recipe or Recipe()).resolved(model.task, model.backbone), Path(folder)
    _check(model, prepared, recipe)
    settings = settings_of(model, prepared, recipe.to_dict(), model.digest)
    earlier = Run.peek(folder, settings)
    if earlier is not None and earlier.finished:
        return earlier
    with alone(folder) if is_first() else contextlib.nullcontext():
        if is_first():
            begun = begin_run(folder, settings, prepared, "lightning")
        _train(model, prepared, folder, recipe, each_epoch)
        if is_first():
            _finish(model, prepared, begun, recipe)
    if processes() > 1:
        torch.distributed.barrier()
    return Run.load(folder)


def _check(model: Classifier, prepared: Prepared, recipe: Recipe) -> None:
    """Refuse before anything is written what cannot be trained, or would fail at the end."""
    task, classes, here = model.task, len(model.task.classes), prepared.folder
    prepared.split("train")
    refuse_crossing(prepared.records)
    parts(model, recipe.frozen)
    if (theirs := prepared.preprocessing) != model.preprocessing:
        raise MedicError(
            f"the model expects images prepared with {model.preprocessing}, {here} was made with {theirs}; build the "
            "model with preprocessing=prepared.preprocessing"
        )
    if (highest := targets(prepared.records, task).max()) >= classes:
        raise MedicError(
            f"{here} has the label {highest}, the task {task.name!r} of the model has only {classes} classes; build "
            "the model for the task of the set"
        )
    if recipe.batch_size % processes():
        raise MedicError(
            f"{recipe.batch_size} images a step cannot be shared evenly by {processes()} processes; take a multiple"
        )
    truth = targets(prepared.split("validation"), task)
    if task.thresholds and (recipe.choose_by != "last" or recipe.sensitivity is not None):
        even = Prediction(task, np.full((len(truth), classes), 0.5, np.float32))
        if np.isnan(score(metrics_for(task)[recipe.judged_by(task)], truth, even)):
            raise MedicError(
                f"neither best epoch nor operating point can be chosen for {task.name!r}: the validation split needs "
                "images with and without a class; give it more patients, or choose_by='last' and no sensitivity"
            )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other trainings out of the folder; the lock ends with the process, however that ends.

    Raises:
        MedicError: another process is training there, or the folder cannot be written.
    """
    lock = FileLock(folder / "training.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise MedicError(f"another process is training in {folder}; wait for it, or choose another folder") from error
    except OSError as error:
        raise MedicError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    try:
        yield
        (folder / "training.lock").unlink(missing_ok=True)
    finally:
        lock.release()


def _train(model: Classifier, prepared: Prepared, folder: Path, recipe: Recipe, each_epoch: Callable | None) -> None:
    # Lightning takes seconds to import, and only a training needs it.
    import lightning

    from medic.modeling.training.module import Checkpoint, EpochEnd, Training

    resume = folder / "resume.ckpt" if (folder / "resume.ckpt").is_file() else None
    if resume:
        _read(resume)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logger = tracker(recipe.track, folder) if recipe.track else False
    if logger:
        logger.log_hyperparams({**recipe.to_dict(), "network": model.backbone_name, "image_size": model.image_size})
    here, together = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), processes()
    highest = "epoch" if recipe.choose_by == "last" else f"validation_{recipe.choose_by}"
    trainer = lightning.Trainer(
        devices=here,
        num_nodes=together // here,
        strategy="ddp" if together > 1 else "auto",
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        callbacks=[Checkpoint(folder, "best", highest), EpochEnd(folder, recipe, each_epoch)],
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    if together > 1:
        trainer.strategy.setup_environment()  # the order of the images is dealt out among those who take part
    data = PreparedDataset(prepared, "train", recipe.augmentation, model.image_size, recipe.seed, model.task)
    judged = PreparedDataset(prepared, "validation", task=model.task)
    share, handler = recipe.batch_size // together, signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(
                Training(model, recipe, {"train": len(data), "validation": len(judged)}),
                loader(data, share, EpochSampler(data, recipe.seed), recipe.workers),
                loader(judged, share, None, recipe.workers),
                ckpt_path=resume,
                weights_only=True,
            )
    except SystemExit:  # Lightning's answer to an interrupt, which would end a notebook's kernel, and be the last
        raise KeyboardInterrupt from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise MedicError(
            f"the last maps of {model.backbone_name} are one pixel at {model.image_size} px, and one image a step has "
            "no spread to normalise by; take 2 images a step or more, or larger ones"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MedicError(
            f"cannot write {folder}: {error.strerror}; free some space, and start again: it goes on"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _read(checkpoint: Path) -> dict:
    """Return what Lightning has written after an epoch."""
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise MedicError(
            f"{checkpoint} is damaged; the best weights so far are in best.ckpt beside it; delete resume.ckpt to train "
            "again from the first epoch"
        ) from error


def _finish(model: Classifier, prepared: Prepared, run: Run, recipe: Recipe) -> None:
    epochs = {}
    for which, name in {"best": "best.ckpt", "last": "resume.ckpt"}.items():
        kept = _read(run.folder / name)
        epochs[which] = kept["epoch"] + 1
        if which == "last" and epochs["best"] == epochs["last"]:
            shutil.copytree(run.folder / "best", run.folder / "last", dirs_exist_ok=True)
            continue
        model.load_state_dict({key.removeprefix("model."): value for key, value in kept["state_dict"].items()})
        decide(model.eval().save(run.folder / which), prepared, model.task, recipe)
    run.finish(best_epoch=epochs["best"], seconds=float(run.history["seconds"].sum()))
    for name in ("best.ckpt", "resume.ckpt"):
        (run.folder / name).unlink()
