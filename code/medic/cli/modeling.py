"""The commands of the modeling stage: train, tune, evaluate, report."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medic.cli.options import SeedOption, TaskArgument
from medic.errors import MedicError
from medic.files import write_text

if TYPE_CHECKING:
    from medic.data.prepare import Prepared
    from medic.modeling.evaluate import Evaluation
    from medic.task import Task

app = typer.Typer()


class ObjectiveName(StrEnum):
    """Objectives by name."""

    cross_entropy = "cross_entropy"
    regression = "regression"
    corn = "corn"
    multilabel = "multilabel"


class RecipeName(StrEnum):
    """Plans of ``medic.modeling.training.plans`` by name."""

    medic = "medic"
    published = "published"
    chexnet = "chexnet"
    binary = "binary"


@app.command()
def train(
    task: TaskArgument = "retinopathy",
    prepared: Annotated[
        Path, typer.Option("--data", "--prepared", "-d", help="Prepared set (medic prepare, medic data).")
    ] = Path("outputs/prepared"),
    save: Annotated[Path, typer.Option("--save", "-s", help="Folder of all runs.")] = Path("outputs/runs"),
    name: Annotated[str, typer.Option("--name", "-n", help="Name of this run, a folder in that one.")] = "latest",
    recipe: Annotated[
        RecipeName | None,
        typer.Option("--recipe", help="What holds for all that is not given below; medic, the usual one, when left."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the training images.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", help="Images a step, over all processes together.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="A network by name.")] = None,
    objective: Annotated[ObjectiveName | None, typer.Option("--objective", help="Loss and decoding.")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Side of the network's input in pixels.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="imagenet, none (random) or a model's folder; the recipe's own when left."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak of the schedule.")] = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", help="Share of the features left out before the last layer.")
    ] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            "--sensitivity",
            help="Share, up to 1, of the validation images with a finding that the operating point shall find.",
        ),
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the network; for GPUs.")
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Train a last layer alone, on features that are computed once.")
    ] = False,
    track: Annotated[
        str | None, typer.Option("--track", help="mlflow or tensorboard: log settings, curves and the evaluation.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes that load images, for each that trains.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Train a network. Killed and started again, it ends with the same result as if nothing had happened.

    The same command under torchrun trains with several processes or machines (docs/distributed_training.md).

    \b
    Example: medic train retinopathy -d data -s outputs/runs -n mine -b 32 -e 30 --objective regression
             medic train chest_xray --recipe chexnet -d outputs/chests -n findings
    """
    from medic.data.prepare import Prepared
    from medic.data.readers import data_set_of
    from medic.modeling.evaluate import evaluate as evaluate_run
    from medic.modeling.features import fit_head
    from medic.modeling.objectives import OBJECTIVES
    from medic.modeling.training.plans import find_plan
    from medic.modeling.training.run import is_first
    from medic.modeling.training.tracking import log_evaluation, tracker

    prepared_set = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, prepared_set), None if recipe is None else recipe.value)
    usual = replace(data_set_of(plan.task).preprocessing, size=prepared_set.preprocessing.size)
    if prepared_set.preprocessing != usual:
        raise MedicError(
            f"the set {prepared} was prepared with {prepared_set.preprocessing}, the task {plan.task.name!r} is read "
            f"with {usual}; name the task of the set, or prepare one with medic prepare {plan.task.name}"
        )
    asked = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    asked["compile"] = compiled
    refused = [f"--{key.replace('_', '-')}" for key, value in asked.items() if frozen and value is not None]
    if refused:
        raise MedicError(f"--frozen computes the last layer at once, without {', '.join(refused)}; leave them away")
    asked |= {"sensitivity": sensitivity, "workers": workers, "track": track, "seed": seed}
    changed = replace(plan.recipe, **{key: value for key, value in asked.items() if value is not None})
    unweighted = plan.weighted and objective not in (None, plan.objective.name)
    plan = replace(
        plan,
        recipe=changed,
        backbone=plan.backbone if backbone is None else backbone,
        image_size=plan.image_size if image_size is None else image_size,
        dropout=plan.dropout if dropout is None else dropout,
        objective=plan.objective if objective is None else OBJECTIVES[objective.value](),
        weighted=0 if unweighted else plan.weighted,
    )
    if is_first() and unweighted:
        print(f"the loss is not weighted against imbalance, unlike the recipe's: {plan.objective.name} has no weights")
    if is_first() and prepared_set.preprocessing.size < plan.image_size:
        print(
            f"the images are prepared at {prepared_set.preprocessing.size} px and enlarged to the {plan.image_size} px "
            "of the network; prepare them larger to show it more"
        )
    if frozen:
        given = {"sensitivity": plan.recipe.sensitivity, "seed": seed}
        run = fit_head(plan.classifier(prepared_set, weights), prepared_set, save / name, **given)
    else:
        run = plan.train(prepared_set, save / name, weights)
    if track and is_first():
        log_evaluation(tracker(track, run.folder), evaluate_run(run, "validation"))
    if is_first():
        print(f"best epoch {run.about['best_epoch']} of {len(run.history)}; the run is in {run.folder}")


@app.command()
def tune(
    task: TaskArgument,
    prepared: Annotated[Path, typer.Option("--data", "--prepared", "-d", help="Prepared set.")] = Path(
        "outputs/prepared"
    ),
    save: Annotated[Path, typer.Option("--save", "-s", help="Folder of all studies.")] = Path("outputs/studies"),
    name: Annotated[str, typer.Option("--name", "-n", help="Name of this study, a folder in that one.")] = "latest",
    trials: Annotated[int, typer.Option("--trials", help="Trials in all, finished and pruned ones.")] = 20,
    recipe: Annotated[RecipeName | None, typer.Option("--recipe", help="From which the trials differ.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the training images.")] = None,
    backbones: Annotated[list[str] | None, typer.Option("--backbone", help="A network; repeat it to compare.")] = None,
    sizes: Annotated[list[int] | None, typer.Option("--image-size", help="In pixels; repeat it to compare.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="imagenet, none or a model's folder.")] = None,
    seed: SeedOption = 0,
) -> None:
    """Look for better settings than a recipe's own, on the validation split. Stopped and repeated, it goes on.

    Learning rate, batch size and dropout vary about the recipe's, and network and image size over those that are given
    more than once. The same command, started several times, works on one study. The last line is the command that
    trains with the best trial's settings.

    \b
    Example: medic tune skin_lesion -d outputs/lesions -n depth --trials 30 --image-size 160 --image-size 224
    """
    from medic.data.prepare import Prepared
    from medic.modeling.training.plans import find_plan
    from medic.modeling.tune import SearchSpace
    from medic.modeling.tune import tune as tune_plan

    prepared_set = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, prepared_set), None if recipe is None else recipe.value)
    plan = replace(
        plan,
        recipe=replace(plan.recipe, seed=seed, epochs=plan.recipe.epochs if epochs is None else epochs),
        backbone=(backbones or [plan.backbone])[0],
        image_size=(sizes or [plan.image_size])[0],
        weights=plan.weights if weights is None else weights,
    )
    choices = {"backbone": backbones, "image_size": sizes}
    wider = {key: tuple(given) for key, given in choices.items() if given is not None and len(given) > 1}
    space = replace(SearchSpace.around(plan), **wider)
    study = tune_plan(plan, prepared_set, save / name, space, trials)
    if prepared_set.synthetic:
        print("the images are SYNTHETIC: nothing made from them is clinical")
    found = study.trials_dataframe(attrs=("number", "value", "duration", "params", "state"))
    found.columns = found.columns.str.removeprefix("value_").str.removeprefix("params_")
    (score,) = study.metric_names
    print(found.sort_values(score, ascending=False).to_string(index=False))
    print(
        f"trial {study.best_trial.number} has the best {score} on validation, which flatters the best of many trials: "
    )
    print("train with its settings, under other seeds too, and judge that on the test split:")
    fixed = {"recipe": recipe, "epochs": plan.recipe.epochs, "weights": weights, "seed": seed, "name": f"{name}-best"}
    fixed |= {"backbone": plan.backbone, "image_size": plan.image_size} | study.best_params
    given = [(f"--{key.replace('_', '-')}", str(value)) for key, value in fixed.items() if value is not None]
    print(shlex.join(["medic", "train", task, "-d", str(prepared), *itertools.chain(*given)]))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    split: Annotated[str, typer.Option("--split", help="test, validation or train.")] = "test",
) -> None:
    """Print a run's figures with 95 % intervals beside the baseline and by slice, and save them with every prediction.

    evaluation.html shows them, with calibration, decision curve and the most wrong images; slices.csv has the slices.

    \b
    Example: medic evaluate outputs/runs/regression --split test
    """
    from medic.modeling.report import write_page
    from medic.modeling.slices import in_words
    from medic.modeling.training.run import Run

    evaluation, folder = evaluate_and_save(run, split), run / f"evaluation-{split}"
    slices = write_page(Run.load(run), evaluation, folder / "evaluation.html")
    write_text(folder / "slices.csv", slices.to_csv(index=False))
    print(f"{evaluation}\n{in_words(slices)}\nsaved in {folder}; open evaluation.html there")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    to: Annotated[Path, typer.Option("--to", help="Markdown file to write.")] = Path("outputs/model_report.md"),
) -> None:
    """Write the model report (TDSP) of a run from its evaluation on the test split, with TRIPOD+AI and CLAIM filled in.

    \b
    Example: medic report outputs/runs/regression --to outputs/model_report.md
    """
    from medic.modeling.report import write_report
    from medic.modeling.training.run import Run

    print(write_report(Run.load(run), evaluate_and_save(run, "test"), to))


def _task_of_prepared(name: str, prepared: Prepared) -> Task:
    """The task of that name; for images of one's own that of their classes, each of which must have kept an image."""
    import pandas as pd

    from medic.data.readers import OWN
    from medic.task import find_task

    if name != OWN.name:
        return find_task(name)
    sets = [records.reindex(columns=["label", "class"]) for records in (prepared.records, prepared.skipped)]
    task = OWN.task(pd.concat([records for records in sets if len(records)]))
    empty = set(range(len(task.classes))) - set(prepared.records["label"])
    if empty:
        raise MedicError(
            f"no image of the class {task.classes[min(empty)]!r} could be read (see skipped.csv in {prepared.folder}); "
            "mend one and prepare again, or leave the class out of the data"
        )
    return task


def evaluate_and_save(run: Path, split: str) -> Evaluation:
    """Evaluate a run on a split and write the evaluation beside it."""
    from medic.modeling.evaluate import evaluate as evaluate_run
    from medic.modeling.training.run import Run

    evaluation = evaluate_run(Run.load(run), split)
    evaluation.save(run / f"evaluation-{split}")
    return evaluation
