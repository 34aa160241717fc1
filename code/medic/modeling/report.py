"""The model report of the Team Data Science Process, written from a run and its evaluation, never by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.records import class_counts, originals, targets
from medic.files import write_text
from medic.modeling.evaluate import Evaluation
from medic.modeling.training.run import Run

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
    task = evaluation.task
    several = task.kind == "multilabel"
    lines = [
        f"# Model report: {run.folder.name}",
        "",
        "Written by `medic report` from the run and its evaluation.",
        "",
        f"{NOT_A_DEVICE} {source}",
        "",
        "## Problem",
        "",
        f"{task.name}: {'any' if several else 'one'} of {len(task.classes)} classes ({task.kind}) for each image: "
        f"{', '.join(task.classes)}.",
        "",
        "## Data",
        "",
        _markdown(class_counts(originals(run.records), evaluation.task)),
        "",
        f"{run.records['patient'].nunique()} patients; no patient is in two splits. "
        f"{len(evaluation.failed)} images of the evaluated split could not be read and are in no figure.",
        "",
        "## Model",
        "",
        f"- network: {model['backbone']}, input {model['image_size']} px, from images prepared at "
        f"{model['preprocessing']['size']} px (crop: {model['preprocessing']['crop']}"
        f"{', grey' if model['preprocessing'].get('grey') else ''})",
        f"- objective: {_objective(model['objective'])}",
        *_training(run, recipe),
        *_operating_point(evaluation, recipe),
        f"- versions: {', '.join(f'{name} {version}' for name, version in run.about['versions'].items())}",
        "",
        f"## Figures: {evaluation.title}",
        "",
        f"{len(evaluation.records)} images of {evaluation.records['patient'].nunique()} patients. Intervals are 95 % "
        f"percentile intervals of a bootstrap over patients; the baseline is: {evaluation.baseline}.",
        "",
        _markdown(table.round(3)),
        "",
        _markdown(evaluation.by_class().round(3)),
        "",
        *([] if several else _confusion(evaluation)),
        "## The most wrong images",
        "",
        _markdown(_worst(evaluation).round(3)),
        "",
    ]
    write_text(path, "\n".join(lines))
    return Path(path)


def _training(run: Run, recipe: dict) -> list[str]:
    took = f"{run.about['seconds']:.0f} s on {run.about['device']}"
    if method := recipe.get("method"):
        head = {"svm": "a linear support vector machine", "logistic": "a linear model with a ridge penalty"}[method]
        return [
            f"- training: none of the network; its last layer is {head} on the features, cost "
            f"{run.history['cost'].iloc[0]:g} by cross-validation over the training patients, seed {recipe['seed']}; "
            f"{took}"
        ]
    return [
        f"- training: {recipe['epochs']} epochs, batches of {recipe['batch_size']}, AdamW, peak learning rate "
        f"{recipe['learning_rate']:g}, precision {recipe['precision']}, seed {recipe['seed']}; {took}",
        *([f"- frozen: {', '.join(recipe['frozen'])}"] if recipe.get("frozen") else []),
        f"- chosen: epoch {run.about['best_epoch']}, {_why(recipe)}",
    ]


def _objective(objective: dict) -> str:
    said = [objective["name"]]
    if objective.get("prevalence") is not None:
        said.append("loss weighted by prevalence, so that probabilities are too high for what is rare")
    if objective.get("class_weights") is not None:
        weights = ", ".join(f"{weight:.2f}" for weight in objective["class_weights"])
        said.append(f"loss weighted against imbalance, by class: {weights}")
    if smoothing := objective.get("label_smoothing"):
        said.append(f"targets smoothed by {smoothing:g}")
    return "; ".join(said)


def _why(recipe: dict) -> str:
    return "the last" if recipe.get("choose_by") == "last" else "by the validation split"


def _operating_point(evaluation: Evaluation, recipe: dict) -> list[str]:
    thresholds = evaluation.prediction.thresholds
    if thresholds is None:
        return []
    each = "the thresholds in the table by class" if len(thresholds) > 1 else f"a probability of {thresholds[0]:.3f}"
    wanted = recipe.get("sensitivity")
    why = "" if wanted is None else f", chosen on the validation split for a sensitivity of {wanted:g}"
    return [f"- operating point: present from {each} on{why}"]


def _confusion(evaluation: Evaluation) -> list[str]:
    classes = evaluation.task.classes
    table = pd.DataFrame(evaluation.confusion, index=pd.Index(classes, name="truth"), columns=classes)
    return ["Confusion matrix (rows are the truth):", "", _markdown(table), ""]


def _worst(evaluation: Evaluation) -> pd.DataFrame:
    table = evaluation.worst(8).set_index("image")
    if evaluation.task.kind == "multilabel":
        names = np.array(evaluation.task.classes)
        table = table.assign(label=["|".join(names[row == 1]) for row in targets(table, evaluation.task)])
    return table[["label", "decided", "p_truth"]]


def _markdown(table: pd.DataFrame) -> str:
    head = [table.index.name or "", *map(str, table.columns)]
    rows = [
        [str(index), *("" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in row)]
        for index, row in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    # Labels of one image are joined by the sign that ends a cell.
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
