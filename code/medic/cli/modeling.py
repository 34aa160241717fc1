"""The commands of the modeling stage: train, tune, evaluate, report."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from medic.cli import options
from medic.errors import MedicError
from medic.files import write_text

if TYPE_CHECKING:
    from medic.data.prepare import Prepared
    from medic.modeling.evaluate import Evaluation
    from medic.task import Task

app = typer.Typer()


@app.command()
def train(
    task: options.TaskArgument = "retinopathy",
    prepared: options.PreparedOption = Path("outputs/prepared"),
    save: Annotated[Path, Option("--save", "-s", help="Folder of all runs.")] = Path("outputs/runs"),
    name: options.NameOption = "latest",
    recipe: options.RecipeOption = None,
    epochs: options.EpochsOption = None,
    batch_size: Annotated[
        int | None, Option("--batch-size", "-b", help="Images a step, over all processes together.")
    ] = None,
    backbone: Annotated[str | None, Option(help="A network by name.")] = None,
    objective: Annotated[str | None, Option(help="cross_entropy, regression, corn or multilabel.")] = None,
    image_size: Annotated[int | None, Option(help="Side of the network's input.")] = None,
    weights: options.WeightsOption = None,
    learning_rate: Annotated[float | None, Option(help="Peak of the schedule.")] = None,
    dropout: Annotated[float | None, Option(help="Share of features left out of the head.")] = None,
    sensitivity: Annotated[
        float | None, Option(help="Share, up to 1, of findings that the threshold shall find.")
    ] = None,
    frozen: Annotated[
        bool, Option("--frozen", help="Train a last layer alone, on features that are computed once.")
    ] = False,
    track: Annotated[str | None, Option(help="mlflow or tensorboard: log settings, curves and the evaluation.")] = None,
    workers: Annotated[int, Option(help="Processes that load images, for each that trains.")] = 0,
    seed: options.SeedOption = 0,
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
    from medic.modeling.objectives import objective_from_dict
    from medic.modeling.training.plans import find_plan
    from medic.modeling.training.run import is_first, log_evaluation, tracker

    images = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, images), recipe)
    usual = replace(data_set_of(plan.task).preprocessing, size=images.preprocessing.size)
    if images.preprocessing != usual:
        raise MedicError(
            f"the set {prepared} was prepared with {images.preprocessing}, the task {plan.task.name!r} is read "
            f"with {usual}; name the task of the set, or prepare one with medic prepare {plan.task.name}"
        )
    learned = options.given(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    if frozen and learned:
        refused = ", ".join(f"--{key.replace('_', '-')}" for key in learned)
        raise MedicError(f"--frozen computes the last layer at once, without {refused}; leave them away")
    changed = replace(
        plan.recipe, **learned, **options.given(sensitivity=sensitivity, track=track, workers=workers, seed=seed)
    )
    unweighted = plan.weighted and objective not in (None, plan.objective.name)
    shape = options.given(backbone=backbone, image_size=image_size, dropout=dropout)
    plan = replace(plan, recipe=changed, **shape, weighted=0 if unweighted else plan.weighted)
    if objective is not None:
        plan = replace(plan, objective=objective_from_dict({"name": objective}))
    if is_first() and unweighted:
        print(f"the loss is not weighted against imbalance, unlike the recipe's: {plan.objective.name} has no weights")
    if is_first() and images.preprocessing.size < plan.image_size:
        print(
            f"the images are prepared at {images.preprocessing.size} px and enlarged to the {plan.image_size} px "
            "of the network; prepare them larger to show it more"
        )
    if frozen:
        given = {"sensitivity": plan.recipe.sensitivity, "seed": seed}
        run = fit_head(plan.classifier(images, weights), images, save / name, **given)
    else:
        run = plan.train(images, save / name, weights)
    if is_first():
        if track:
            log_evaluation(tracker(track, run.folder), evaluate_run(run, "validation"))
        print(f"best epoch {run.about['best_epoch']} of {len(run.history)}; the run is in {run.folder}")


@app.command()
def tune(
    task: options.TaskArgument,
    prepared: options.PreparedOption = Path("outputs/prepared"),
    save: Annotated[Path, Option("--save", "-s", help="Folder of all studies.")] = Path("outputs/studies"),
    name: options.NameOption = "latest",
    trials: Annotated[int, Option(min=1, help="Trials in all, finished and pruned ones.")] = 20,
    recipe: options.RecipeOption = None,
    epochs: options.EpochsOption = None,
    backbones: Annotated[list[str] | None, Option("--backbone", help="A network; repeat it to compare.")] = None,
    sizes: Annotated[list[int] | None, Option("--image-size", help="In pixels; repeat it to compare.")] = None,
    weights: options.WeightsOption = None,
    seed: options.SeedOption = 0,
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

    images = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, images), recipe)
    first = options.given(backbone=(backbones or [None])[0], image_size=(sizes or [None])[0], weights=weights)
    plan = replace(plan, recipe=replace(plan.recipe, seed=seed, **options.given(epochs=epochs)), **first)
    choices = {"backbone": backbones or [], "image_size": sizes or []}
    wider = {key: tuple(given) for key, given in choices.items() if len(given) > 1}
    study = tune_plan(plan, images, save / name, replace(SearchSpace.around(plan), **wider), trials)
    if images.synthetic:
        print("the images are SYNTHETIC: nothing made from them is clinical")
    found = study.trials_dataframe(attrs=("number", "value", "duration", "params", "state"))
    found.columns = found.columns.str.removeprefix("value_").str.removeprefix("params_")
    (score,) = study.metric_names
    print(found.sort_values(score, ascending=False).to_string(index=False))
    best = f"trial {study.best_trial.number} has the best {score} on validation"
    print(f"{best}, which flatters the best of many trials: ")
    print("train with its settings, under other seeds too, and judge that on the test split:")
    fixed = options.given(recipe=recipe, epochs=plan.recipe.epochs, weights=weights, seed=seed, name=f"{name}-best")
    fixed |= {"backbone": plan.backbone, "image_size": plan.image_size} | study.best_params
    words = [word for key, value in fixed.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    print(shlex.join(["medic", "train", task, "-d", str(prepared), *words]))


@app.command()
def evaluate(
    run: options.RunArgument = Path("outputs/runs/latest"),
    split: Annotated[str, Option(help="test, validation or train.")] = "test",
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
    run: options.RunArgument = Path("outputs/runs/latest"),
    to: Annotated[Path, Option(help="Markdown file to write.")] = Path("outputs/model_report.md"),
) -> None:
    """Write the model report (TDSP) of a run from its evaluation on the test split, with TRIPOD+AI and CLAIM filled in.

    \b
    Example: medic report outputs/runs/regression --to outputs/model_report.md
    """
    from medic.modeling.report import write_report
    from medic.modeling.training.run import Run

    print(write_report(Run.load(run), evaluate_and_save(run, "test"), to))


def evaluate_and_save(run: Path, split: str) -> "Evaluation":
    """Evaluate a run on a split and write the evaluation beside it."""
    from medic.modeling.evaluate import evaluate as evaluate_run
    from medic.modeling.training.run import Run

    evaluation = evaluate_run(Run.load(run), split)
    evaluation.save(run / f"evaluation-{split}")
    return evaluation


def _task_of_prepared(name: str, prepared: "Prepared") -> "Task":
    """The task of that name; for images of one's own that of their classes, each of which must have kept an image."""
    import pandas as pd

    from medic.data.readers import OWN
    from medic.task import find_task

    if name != OWN.name:
        return find_task(name)
    sets = [records.reindex(columns=["label", "class"]) for records in (prepared.records, prepared.skipped)]
    task = OWN.task(pd.concat([records for records in sets if len(records)]))
    if empty := set(range(len(task.classes))) - set(prepared.records["label"]):
        raise MedicError(
            f"no image of the class {task.classes[min(empty)]!r} could be read (see skipped.csv in {prepared.folder}); "
            "mend one and prepare again, or leave the class out of the data"
        )
    return task
