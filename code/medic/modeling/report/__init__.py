"""The model report of the Team Data Science Process, written from a run and its evaluation, never by hand."""

from __future__ import annotations

import os
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from medic.data.records import class_counts, originals, targets
from medic.data.split import patients_known
from medic.files import write_text
from medic.modeling.evaluate import Evaluation
from medic.modeling.training.run import Run


def write_report(run: Run, evaluation: Evaluation, path: str | os.PathLike) -> Path:
    """Write what was trained, on what, how well it does and where it fails, as Markdown; return the path.

    Args:
        run: the finished run.
        evaluation: of its model on the test split.
        path: the file to write.
    """
    task, worst = evaluation.task, evaluation.worst(8)
    names = pd.Index(task.classes, name="truth")
    if task.kind == "multilabel":
        worst["label"] = ["|".join(names[row == 1]) for row in targets(worst, task)]
    page = _ENVIRONMENT.get_template("model_report.md.j2").render(
        run=run,
        evaluation=evaluation,
        task=task,
        patients_known=patients_known(run.records),
        counts=class_counts(originals(run.records), task),
        confusion=None if task.kind == "multilabel" else pd.DataFrame(evaluation.confusion, names, task.classes),
        worst=worst.set_index("image")[["label", "decided", "p_truth"]],
        **run.about["settings"],
    )
    write_text(path, page)
    return Path(path)


def _markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, where a bar (which joins the labels of one image) would end a cell."""
    cells = table.reset_index(names=table.index.name or "")
    rows = [list(cells), ["---"] * cells.shape[1], *cells.itertuples(index=False)]
    return "\n".join(" | ".join(["", *map(_cell, row), ""]).strip() for row in rows)


def _cell(value: object) -> str:
    said = ("" if pd.isna(value) else f"{round(value, 3):g}") if isinstance(value, float | np.floating) else str(value)
    return said.replace("|", r"\|")


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("medic.modeling", "report"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["markdown"] = _markdown
