"""Experiment tracking with MLflow or TensorBoard, through Lightning's loggers (``pip install medic[track]``)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medic.errors import MedicError
from medic.files import write_text

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from medic.modeling.evaluate import Evaluation


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
