"""A training run: the folder that says what was trained, on what, how it went, and holds the weights; its tracker."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from medic.data.prepare import Prepared
from medic.data.records import read_records
from medic.errors import MedicError
from medic.files import replacing, write_json, write_text
from medic.modeling.classifier import Classifier
from medic.task import Task

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from medic.modeling.evaluate import Evaluation


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished or unfinished training run on disk.

    The folder holds ``run.json`` (settings, versions, machine), ``records.csv`` (the split that the result rests on),
    ``history.csv`` (loss and metrics by epoch), ``best/`` and ``last/`` (weights as safetensors, settings as JSON) and,
    until it is finished, ``best.ckpt`` and ``resume.ckpt``.

    Attributes:
        folder: where it lies.
        about: the content of ``run.json``.
    """

    folder: Path
    about: dict

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Run":
        """Open a finished run; a MedicError says where there is none, or where it was interrupted."""
        run = cls.peek(folder)
        if run is None:
            raise MedicError(f"there is no training run in {folder}; train one (medic train) or correct the path")
        if not run.finished:
            raise MedicError(f"the training run in {folder} was interrupted; start the same training again: it goes on")
        return run

    @classmethod
    def peek(cls, folder: str | os.PathLike, settings: dict | None = None) -> "Run | None":
        """Open a run, finished or not; None where there is none.

        Raises:
            MedicError: its ``run.json`` is damaged, or says other settings than those given.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            return None
        try:
            about = json.loads(path.read_text())
            [*_] = about["settings"]["recipe"], about["settings"]["model"]["task"], about["finished"], about["prepared"]
        except (ValueError, KeyError, TypeError) as error:
            raise MedicError(f"{path} is damaged ({error!r}); delete the folder and train again") from error
        if settings is not None:
            refuse_other_settings(folder, about["settings"], settings)
        return cls(path.parent, about)

    def _read(self, name: str, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
        try:
            return read(self.folder / name)
        except (OSError, ValueError) as error:
            raise MedicError(f"{self.folder / name} is gone or damaged ({error}); restore it or train again") from error

    @property
    def finished(self) -> bool:
        """Whether the training reached its last epoch."""
        return self.about["finished"]

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return Task.from_dict(self.about["settings"]["model"]["task"])

    @cached_property
    def history(self) -> pd.DataFrame:
        """Loss and metrics by epoch: one row an epoch, columns such as ``train_loss`` and ``validation_accuracy``."""
        return self._read("history.csv", partial(pd.read_csv, float_precision="round_trip"))

    @cached_property
    def records(self) -> pd.DataFrame:
        """The rows it was trained, chosen and tested on, with their split."""
        return self._read("records.csv", read_records)

    @property
    def prepared(self) -> Prepared:
        """The prepared set it was trained on, with the run's own rows and split; a MedicError where it is gone."""
        return replace(Prepared.load(os.path.normpath(self.folder / self.about["prepared"])), records=self.records)

    def model(self, which: str = "best") -> Classifier:
        """Return the trained model: ``best`` by the validation split, or the ``last`` epoch's."""
        if which not in ("best", "last"):
            raise MedicError(f"this run has the models best and last, not {which!r}")
        return Classifier.load(self.folder / which, self.task)

    def finish(self, **reached: float) -> None:
        """Note in ``run.json`` that the training is finished, and what it reached, such as ``best_epoch``."""
        write_json(self.folder / "run.json", self.about | {"finished": True, **reached})

    def __repr__(self) -> str:
        return f"<Run {self.folder.name}: {'finished' if self.finished else 'interrupted'}>"


def processes() -> int:
    """Return how many processes ``torchrun`` has started to train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Return whether this process is the one, of those that ``torchrun`` has started, that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def settings_of(model: Classifier, prepared: Prepared, recipe: dict, start: str) -> dict:
    """Return all that decides the result of a training, as it comes back from JSON.

    Args:
        model: before it is trained.
        prepared: the set that it is trained on; its files, split and labels are stated by a digest.
        recipe: how it is trained, as values for JSON.
        start: a digest of the weights that it starts from.
    """
    classes = list(model.task.classes) if model.task.kind == "multilabel" else []
    columns = prepared.records[["image", "file", "split", "label", *classes]]
    data = hashlib.sha256(columns.to_csv(index=False).encode()).hexdigest()[:16]
    return json.loads(json.dumps({"model": model.to_dict(), "recipe": recipe, "start": start, "data": data}))


def refuse_other_settings(folder: str | os.PathLike, earlier: dict, now: dict) -> None:
    """Raise a MedicError that names the first settings that differ; both as ``settings_of`` gives them."""
    if earlier == now:
        return
    changed = [
        f"{part}.{key} {earlier[part].get(key)} there, {value} here"
        for part in ("model", "recipe")
        for key, value in now[part].items()
        if earlier[part].get(key) != value
    ]
    changed += ["other images or another split"] * (earlier["data"] != now["data"])
    changed += ["other initial weights; call torch.manual_seed before building"] * (earlier["start"] != now["start"])
    said = "; ".join(changed[:3]) or "another version of medic wrote it"
    raise MedicError(f"{folder} holds a training with other settings ({said}); choose another folder, or delete it")


def begin_run(folder: Path, settings: dict, prepared: Prepared, library: str) -> Run:
    """Write ``run.json`` and ``records.csv`` of a run that begins or goes on; it notes the version of a library."""
    about = {
        "settings": settings,
        "finished": False,
        "prepared": Path(os.path.relpath(prepared.folder, folder)).as_posix(),
        "processes": processes(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "versions": {name: importlib.metadata.version(name) for name in ("medic", "torch", "torchvision", library)},
    }
    write_json(folder / "run.json", about)
    with replacing(folder / "records.csv") as temporary:
        prepared.records.to_csv(temporary, index=False)
    return Run(folder, about)


def tracker(name: str, folder: Path) -> "Logger":
    """Return the logger of the run in a folder; a run that goes on gets the one that it had.

    ``tensorboard`` writes to ``tensorboard/`` beside the run; ``mlflow`` to what ``MLFLOW_TRACKING_URI`` names,
    otherwise to ``mlflow.db`` and ``mlruns/`` beside the run. Raises a MedicError where it is not installed.
    """
    from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger

    beside, known = folder.resolve().parent, folder / "mlflow_run.txt"
    address, id = os.environ.get("MLFLOW_TRACKING_URI"), known.read_text() if known.is_file() else None
    local = {"tracking_uri": f"sqlite:///{(beside / 'mlflow.db').as_posix()}"}
    local["artifact_location"] = (beside / "mlruns").as_uri()
    try:
        if name == "tensorboard":
            return TensorBoardLogger(beside / "tensorboard", folder.name, version="")
        logger = MLFlowLogger("medic", folder.name, run_id=id, **({"tracking_uri": address} if address else local))
    except ModuleNotFoundError as error:
        raise MedicError(
            f"{name} is not installed ({error}); pip install medic[track], or leave --track away"
        ) from error
    write_text(known, logger.run_id)
    return logger


def log_evaluation(logger: "Logger", evaluation: "Evaluation") -> None:
    """Log an evaluation's values, and its pictures, to the run of a logger."""
    from medic.plots import evaluation as plots
    from medic.plots import headline

    logger.log_metrics({f"evaluation_{name}": value for name, value in evaluation.table()["value"].items()})
    drawn, task = {}, evaluation.task
    if task.thresholds:
        drawn["curves"] = plots.curves(evaluation.questions)
    if task.kind != "multilabel":
        drawn["confusion"] = plots.confusion_matrix(evaluation.confusion, task)
    for name, figure in drawn.items():
        headline(figure, evaluation.heading)
        if hasattr(logger.experiment, "add_figure"):
            logger.experiment.add_figure(name, figure)
        else:
            logger.experiment.log_figure(logger.run_id, figure, f"{name}.png")
    logger.finalize("success")
