"""The model report of the Team Data Science Process, written from a run and its evaluation, never by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from medic.data.balance import class_counts
from medic.files import write_text
from medic.modeling.evaluate import Evaluation
from medic.modeling.run import Run

NOT_A_DEVICE = "This model is not a medical device. It must not be used for diagnosis or treatment."


def write_report(run: Run, evaluation: Evaluation, path: str | os.PathLike) -> Path:
    """Write what was trained, on what, how well it does and where it fails, as Markdown.

    Args:
        run: the finished run.
        evaluation: of its model on the test split.
        path: the file to write.

    Returns:
        ``path``.
    """
    settings = run.about["settings"]
    model, recipe = settings["model"], settings["recipe"]
    source = (
        "**The images are synthetic: no figure below says anything about patients.**"
        if evaluation.synthetic
        else "The figures hold for these images and this camera, and for no other."
    )
    table = evaluation.table().rename(columns={"low": "95 % low", "high": "95 % high"})
    baseline = evaluation.task.classes[evaluation.majority]
    lines = [
        f"# Model report: {run.folder.name}",
        "",
        "Written by `medic report` from the run and its evaluation.",
        "",
        f"{NOT_A_DEVICE} {source}",
        "",
        "## Problem",
        "",
        f"{evaluation.task.name}: one of {len(evaluation.task.classes)} classes "
        f"({evaluation.task.kind}) for each image: {', '.join(evaluation.task.classes)}.",
        "",
        "## Data",
        "",
        _markdown(class_counts(run.records, evaluation.task)),
        "",
        f"{run.records['patient'].nunique()} patients; no patient is in two splits. "
        f"{len(evaluation.failed)} images of the evaluated split could not be read and are in no figure.",
        "",
        "## Model",
        "",
        f"- network: {model['backbone']}, input {model['image_size']} px, from images prepared at "
        f"{model['preprocessing']['size']} px (crop: {model['preprocessing']['crop']})",
        f"- objective: {model['objective']['name']}",
        f"- training: {recipe['epochs']} epochs, batches of {recipe['batch_size']}, AdamW, peak learning rate "
        f"{recipe['learning_rate']:g}, precision {recipe['precision']}, seed {recipe['seed']}; "
        f"{run.about['seconds']:.0f} s on {run.about['device']}",
        f"- chosen: epoch {run.about['best_epoch']}, by the validation split",
        f"- versions: {', '.join(f'{name} {version}' for name, version in run.about['versions'].items())}",
        "",
        f"## Figures: {evaluation.title}",
        "",
        f"{len(evaluation.records)} images of {evaluation.records['patient'].nunique()} patients. Intervals are 95 % "
        f"percentile intervals of a bootstrap over patients; the baseline always says {baseline}.",
        "",
        _markdown(table.round(3)),
        "",
        _markdown(evaluation.by_class().round(3)),
        "",
        "Confusion matrix (rows are the truth):",
        "",
        _markdown(
            pd.DataFrame(
                evaluation.confusion,
                index=pd.Index(evaluation.task.classes, name="truth"),
                columns=evaluation.task.classes,
            )
        ),
        "",
        "## The most wrong images",
        "",
        _markdown(evaluation.worst(8)[["image", "label", "decided", "p_truth"]].round(3).set_index("image")),
        "",
    ]
    write_text(path, "\n".join(lines))
    return Path(path)


def _markdown(table: pd.DataFrame) -> str:
    head = [table.index.name or "", *map(str, table.columns)]
    rows = [
        [str(index), *("" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in row)]
        for index, row in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
