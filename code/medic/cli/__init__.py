"""The command line: each step of the series as one command. Every ``--help`` ends with an example."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medic.errors import MedicError

if TYPE_CHECKING:
    import pandas as pd

    from medic.data.prepare import Prepared
    from medic.data.readers import DataSet
    from medic.data.stores import Store
    from medic.modeling.evaluate import Evaluation
    from medic.modeling.training.recipe import Recipe
    from medic.predict import Model
    from medic.task import Task

app = typer.Typer(
    name="medic",
    help="Medical image classification, from pixels to endpoint. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    Path, typer.Option("--data", "-d", help="Folder that holds the task's folder or zip file, or that folder itself.")
]
TaskArgument = Annotated[
    str,
    typer.Argument(
        help="What is predicted: retinopathy, chest_xray, chest_xray_binary, chest_xray_or_none, digits, skin_lesion; "
        "own for images of your own, in a folder a class or with a CSV file."
    ),
]
LevelOption = Annotated[
    int | None, typer.Option("--level", help="own: which level of folders is the classes', where it can be mistaken.")
]
LookedForOption = Annotated[
    str | None,
    typer.Option("--looked-for", help="own: of two classes the one looked for; else the last by name."),
]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Folder or zip of the images, when elsewhere.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Fixes splits, order, augmentation and weights.")]
SizeOption = Annotated[int, typer.Option("--size", help="Side of the prepared images in pixels.")]
TestOption = Annotated[
    float | None, typer.Option("--test", help="Share of patients for testing; by default the source's own test split.")
]
SpaceOption = Annotated[str, typer.Option("--space", help="Name of the space that holds the deployment.")]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder or .tar.gz.")]
NameArgument = Annotated[str, typer.Argument(help="Name of the deployment.")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the service's token; else MEDIC_TOKEN, if set.")
]


class ObjectiveName(StrEnum):
    """Objectives by name."""

    cross_entropy = "cross_entropy"
    regression = "regression"
    corn = "corn"
    multilabel = "multilabel"
    hierarchical = "hierarchical"


class RecipeName(StrEnum):
    """Plans of ``medic.modeling.training.plans`` by name."""

    medic = "medic"
    published = "published"
    chexnet = "chexnet"
    binary = "binary"
    digits = "digits"
    lesions = "lesions"


class LineName(StrEnum):
    """Lines of the series by name."""

    retinopathy = "retinopathy"
    chest_xray = "chest_xray"
    digits = "digits"
    skin_lesion = "skin_lesion"


class Compression(StrEnum):
    """What ``package`` may do to the graph."""

    none = "none"
    int8 = "int8"


class Target(StrEnum):
    """Where a bundle becomes a service, by name."""

    local = "local"
    watsonx = "watsonx"
    azureml = "azureml"
    kserve = "kserve"


TargetOption = Annotated[Target, typer.Option("--target", help="Where: this machine, a cloud or a cluster.")]


def main() -> None:
    """Entry point: a person's mistake ends in one sentence and exit status 1, not in a traceback."""
    try:
        app()
    except MedicError as error:
        print(f"medic: {error}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer makes a SystemExit with status 130 of Ctrl-C, and says nothing.
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        print("medic: stopped; give the same command again to go on", file=sys.stderr)
        sys.exit(130)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A set, such as retinamnist; an unknown name lists them.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the sets go.")] = Path("data"),
    size: Annotated[int | None, typer.Option("--size", help="Side in pixels, where a set comes in several.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Images, half of them malignant; for skin_lesion, 200 when left.")
    ] = None,
) -> None:
    """Fetch a public set from its home: progress, resume, checksum, licence. Where a login is needed, how to do it.

    \b
    Example: medic download retinamnist --folder data
             medic download skin_lesion --limit 200
    """
    from medic.data.download import download as fetch_set

    print(fetch_set(name, folder, size=size, limit=limit))


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="An absent or empty folder, or an earlier sample.")],
    line: Annotated[LineName, typer.Option("--line", help="Which set.")] = LineName.retinopathy,
    patients: Annotated[
        int | None, typer.Option("--patients", help="Made-up patients; the sample's number when left.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed gives the same files.")] = None,
) -> None:
    """Write a sample in the published layout: synthetic fundus photographs, radiographs or lesions, or real digits.

    \b
    Example: medic sample outputs/more_eyes/retinopathy --patients 200 --seed 7
             medic sample outputs/more_chests/chest_xray --line chest_xray
             medic sample outputs/more_lesions/skin_lesion --line skin_lesion --seed 7
    """
    from medic.sample import SAMPLES

    asked = {key: value for key, value in {"patients": patients, "seed": seed}.items() if value is not None}
    if SAMPLES[line.value].draw is None:
        if asked:
            raise MedicError("the digits are real scans whose number is given; leave --patients and --seed away")
        SAMPLES[line.value].write(folder)
        print(f"scikit-learn's handwritten digits in {folder}")
        return
    records = SAMPLES[line.value].write(folder, **asked)
    print(f"{len(records)} synthetic images of {records['patient'].nunique()} made-up patients in {folder}")


@app.command()
def describe(
    task: TaskArgument,
    data: DataOption = Path("sample_data"),
    images: ImagesOption = None,
    level: LevelOption = None,
    looked_for: LookedForOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say what a data set holds: images, patients, classes by split, what is missing. No image is opened.

    \b
    Example: medic describe retinopathy --data ../shared/data
    """
    from medic.data.explore import describe as describe_records

    records, store, found, _ = _read(task, data, images, level, looked_for)
    description = describe_records(records, store, found)
    print(json.dumps(description.to_dict(), indent=2) if as_json else description)


@app.command("check")
def check_sets(
    what: Annotated[
        str | None, typer.Argument(help="A data folder (all sets in it are checked), or a line such as retinopathy.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Where a line is named: the data folder; sample_data when left.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder of the tables and pages, a folder a set.")] = Path(
        "outputs/check"
    ),
    level: LevelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Find what is wrong with images and labels before training: broken, repeated, dark, blurred, odd, rare.

    Writes for each set findings.csv and findings.html, a page with pictures. Findings are no failure: the status is 0.

    \b
    Example: medic check ../shared/data
             medic check skin_lesion --data ../shared/data --to outputs/check
    """
    from medic.data.check.report import check_set, sets_in, unknown_in
    from medic.data.readers import DATA_SETS, OWN, data_set_of
    from medic.task import TASKS

    name = what if what in (*DATA_SETS, OWN.name) else data_set_of(TASKS[what]).name if what in TASKS else None
    # A folder that is called as a line and lies here is that folder, unless another is named.
    is_folder = what is not None and data is None and (name is None or Path(what).exists())
    folder = Path(what) if is_folder else data or Path("sample_data")
    if what is not None and name is None and data is not None:
        raise MedicError(f"with --data, name a line to check ({', '.join(DATA_SETS)}, {OWN.name}), not {what!r}")
    checked, failed = {}, []
    sets = sets_in(folder, None if is_folder else name)
    if level is not None and set(sets) != {OWN.name}:
        raise MedicError(f"--level is for images of your own; {' and '.join(sets)} in {folder} have their own layout")
    for found, (line, source) in sets.items():
        try:
            checked[found] = check_set(line, source, to / found, level)
        except MedicError as error:
            failed.append(f"{found}: {error}")
            continue
        if not as_json:
            print(checked[found])
    if as_json:
        print(json.dumps({found: one.to_dict() for found, one in checked.items()}, indent=2))
    if others := unknown_in(folder) if is_folder or name is None else []:
        print(
            f"not checked, for no line is called so: {', '.join(others)}; medic check LINE --data {folder / others[0]}",
            file=sys.stderr,
        )
    if failed:
        raise MedicError("; ".join(failed))


@app.command("data")
def competition_data(
    main: Annotated[Path, typer.Option("--main", "--zip_main", "-m", help="Zip file or folder of the competition.")],
    extra: Annotated[
        Path | None, typer.Option("--additional", "--zip_2015", "-a", help="Zip file or folder of the 2015 set.")
    ] = None,
    directory: Annotated[Path, typer.Option("--directory", "-d", help="Where the prepared set goes.")] = Path("data"),
    per_class: Annotated[int, typer.Option("--per-class", help="Training images of each class, at most.")] = 1000,
    validation: Annotated[float, typer.Option("--validation", help="Share of the main archive's patients.")] = 0.2,
    size: SizeOption = 512,
    seed: SeedOption = 0,
) -> None:
    """Choose training and validation images from two archives, as the competition needs them, and prepare them.

    Nothing is unpacked. Validation keeps the main archive's natural distribution; training has the same number of
    images of each class, filled up from the 2015 set. Interrupted, it goes on; repeated, it does only what is new.

    \b
    Example: medic data -m MAIN.zip -a EXTRA.zip -d data
    Then:    medic train retinopathy -d data
    """
    from medic.data.competition import select, write
    from medic.data.images.preprocess import Preprocessing

    selection = select(main, extra, per_class=per_class, validation=validation, seed=seed)
    prepared = write(selection, directory, Preprocessing(size=size))
    print(selection.balance(prepared.records).to_string())
    for name, count in selection.short(prepared.records).items():
        print(f"{name}: {count} training images of the {per_class} asked for; there are no more to use")
    for archive, count in selection.unlisted.items():
        if count:
            print(f"{count} images in the {archive} archive are in no table and were not used")
    for reason, rows in selection.dropped.groupby("reason", sort=False):
        print(f"{len(rows)} images left out ({reason}), the first: {rows['image'].iloc[0]}, {rows['detail'].iloc[0]}")
    print(f"{len(prepared.records)} images prepared at {size} px in {directory}; selection.json there accounts for all")
    if prepared.synthetic:
        print("the photographs are SYNTHETIC: nothing made from them is clinical")
    _report_skipped(prepared)


@app.command()
def prepare(
    task: TaskArgument,
    data: DataOption = Path("sample_data"),
    images: ImagesOption = None,
    to: Annotated[Path, typer.Option("--to", help="Folder of the prepared set.")] = Path("outputs/prepared"),
    size: SizeOption = 256,
    test: TestOption = None,
    level: LevelOption = None,
    looked_for: LookedForOption = None,
    seed: SeedOption = 0,
) -> None:
    """Check, split by patient, crop and scale once. Interrupted, it goes on; repeated, it does only what is new.

    \b
    Example: medic prepare retinopathy --data ../shared/data --size 384 --to outputs/prepared/mine
    """
    from medic.data.prepare import prepare as prepare_images
    from medic.data.readers import OWN
    from medic.data.records import class_counts, lacking

    records, store, found, line = _read(task, data, images, level, looked_for)
    if line is OWN and found.thresholds:
        print(f"of the two classes {found.classes[1]} is what is looked for (--looked-for names the other)")
    records = _split(records, found, test, seed)
    prepared = prepare_images(records, store, to, replace(line.preprocessing, size=size))
    print(class_counts(prepared.records, found).to_string())
    print(f"{len(prepared.records)} images prepared at {size} px in {to}")
    for sentence in lacking(prepared.records, found) if line is OWN else ():
        print(sentence, file=sys.stderr)
    _report_skipped(prepared)


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
        typer.Option("--recipe", help="What holds for all that is not given below; the task's usual one when left."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the training images.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", help="Images a step, over all processes together.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="A torchvision network.")] = None,
    objective: Annotated[ObjectiveName | None, typer.Option("--objective", help="Loss and decoding.")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Side of the network's input in pixels.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="imagenet, generated (pretrain on synthetic images) or a model's folder."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak of the schedule.")] = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", help="Share of the features left out before the last layer.")
    ] = None,
    augmentation: Annotated[
        float | None, typer.Option("--augmentation", help="Strength: 0 varies no image but mirrors it, 2 doubles all.")
    ] = None,
    balanced: Annotated[
        bool | None, typer.Option("--balanced/--not-balanced", help="Draw every class equally often.")
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
    workers: Annotated[int, typer.Option("--workers", help="Processes that load images, for each that trains.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Train a network. Killed and started again, it ends with the same result as if nothing had happened.

    The same command under torchrun trains with several processes or machines (docs/distributed_training.md).

    \b
    Example: medic train retinopathy -d data -s outputs/runs -n mine -b 32 -e 30 --objective regression
             medic train chest_xray --recipe chexnet -d outputs/chests -n findings --weights generated
    """
    import torch

    from medic.data.prepare import Prepared
    from medic.data.readers import data_set_of
    from medic.modeling.objectives import objective_named
    from medic.modeling.training.distributed import processes
    from medic.modeling.training.fit import fit
    from medic.modeling.training.plans import find_plan

    prepared_set = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, prepared_set), None if recipe is None else recipe.value)
    usual = replace(data_set_of(plan.task).preprocessing, size=prepared_set.preprocessing.size)
    if prepared_set.preprocessing != usual:
        raise MedicError(
            f"the set {prepared} was prepared with {prepared_set.preprocessing}, the task {plan.task.name!r} is read "
            f"with {usual}; name the task of the set, or prepare one with medic prepare {plan.task.name}"
        )
    asked = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "balanced": balanced}
    asked |= {"sensitivity": sensitivity, "compile": compiled, "workers": workers, "seed": seed}
    changed = replace(plan.recipe, **{key: value for key, value in asked.items() if value is not None})
    if augmentation is not None:
        changed = replace(changed, augmentation=_varied(changed, augmentation))
    changed.resolved(plan.task)  # what does not suit the task is refused before any pretraining
    unweighted = plan.weighted and objective not in (None, plan.objective.name)
    plan = replace(
        plan,
        recipe=changed,
        backbone=plan.backbone if backbone is None else backbone,
        image_size=plan.image_size if image_size is None else image_size,
        dropout=plan.dropout if dropout is None else dropout,
        objective=plan.objective if objective is None else objective_named(objective.value, plan.task),
        weighted=plan.weighted and not unweighted,
    )
    first = processes().first
    if weights == "generated":
        if first:
            print(f"the network first learns from SYNTHETIC images, which go to {save / 'pretraining'}")
        weights = str(plan.pretrained(save / "pretraining", workers))
    elif weights is None and first:
        print("the network starts from random weights (--weights imagenet or generated give it a start)")
        if frozen := ", ".join(plan.recipe.frozen):
            print(
                f"{frozen} stay random to the end, because the recipe freezes them; pass --weights imagenet, --weights "
                "generated or --weights with a trained model's folder, so that they have seen images"
            )
    torch.manual_seed(seed)
    model = plan.classifier(prepared_set, weights)
    if first and unweighted:
        print(f"the loss is not weighted against imbalance, unlike the recipe's: {plan.objective.name} has no weights")
    if first and prepared_set.preprocessing.size < plan.image_size:
        print(
            f"the images are prepared at {prepared_set.preprocessing.size} px and enlarged to the {plan.image_size} px "
            "of the network; prepare them larger to show it more"
        )
    run = fit(model, prepared_set, save / name, plan.recipe)
    if first:
        print(f"best epoch {run.about['best_epoch']} of {plan.recipe.epochs}; the run is in {run.folder}")


@app.command()
def tune(
    task: TaskArgument,
    prepared: Annotated[Path, typer.Option("--data", "--prepared", "-d", help="Prepared set.")] = Path(
        "outputs/prepared"
    ),
    save: Annotated[Path, typer.Option("--save", "-s", help="Folder of all studies.")] = Path("outputs/studies"),
    name: Annotated[str, typer.Option("--name", "-n", help="Name of this study, a folder in that one.")] = "latest",
    trials: Annotated[int, typer.Option("--trials", help="Trials in all, finished and pruned ones.")] = 20,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Start no trial after so many seconds.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes that train at the same time.")] = 1,
    recipe: Annotated[RecipeName | None, typer.Option("--recipe", help="From which the trials differ.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the training images.")] = None,
    backbones: Annotated[list[str] | None, typer.Option("--backbone", help="A network; repeat it to compare.")] = None,
    sizes: Annotated[list[int] | None, typer.Option("--image-size", help="In pixels; repeat it to compare.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="imagenet or a model's folder.")] = None,
    seed: SeedOption = 0,
) -> None:
    """Look for better settings than a recipe's own, on the validation split. Stopped and repeated, it goes on.

    Learning rate, batch size, dropout and strength of the augmentation vary about the recipe's, and network and image
    size over those that are given more than once. The last lines are the commands that train with what is recommended.

    \b
    Example: medic tune skin_lesion -d outputs/lesions -n depth --trials 30 --backbone resnet18 --backbone resnet34
    """
    from medic.data.prepare import Prepared
    from medic.modeling.training.plans import find_plan
    from medic.modeling.tune import Budget
    from medic.modeling.tune import tune as tune_plan
    from medic.modeling.tune.space import Space

    prepared_set = Prepared.load(prepared)
    plan = find_plan(_task_of_prepared(task, prepared_set), None if recipe is None else recipe.value)
    plan = replace(
        plan,
        recipe=replace(plan.recipe, seed=seed, epochs=plan.recipe.epochs if epochs is None else epochs),
        backbone=(backbones or [plan.backbone])[0],
        image_size=(sizes or [plan.image_size])[0],
    )
    choices = {"backbone": backbones, "image_size": sizes}
    wider = {key: tuple(given) for key, given in choices.items() if given is not None and len(given) > 1}
    budget = Budget(trials, seconds, workers)
    study = tune_plan(plan, prepared_set, save / name, replace(Space.around(plan), **wider), budget, weights)
    if prepared_set.synthetic:
        print("the images are SYNTHETIC: nothing made from them is clinical")
    recommended = study.recommended()
    print(f"by {study.metric} on validation, which flatters the best of many: judge it on the test split")
    print(recommended.to_string(index=False))
    fixed = {"--recipe": recipe, "--epochs": epochs, "--weights": weights}
    fixed |= {"--backbone": plan.backbone if backbones else None, "--image-size": plan.image_size if sizes else None}
    fixed |= {"--seed": seed}
    for trial in recommended["trial"]:
        chosen = study.options(trial)
        given = [(key, value) for key, value in fixed.items() if value is not None and f"{key} " not in chosen]
        start = ["medic", "train", task, "-d", prepared, "-n", f"{name}-{trial:03d}", *itertools.chain(*given)]
        print(shlex.join(map(str, start)), chosen)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    split: Annotated[str, typer.Option("--split", help="test, validation or train.")] = "test",
) -> None:
    """Print a run's figures with 95 % intervals beside the baseline, and save them with every prediction.

    \b
    Example: medic evaluate outputs/runs/regression --split test
    """
    evaluation = _evaluate(run, split)
    print(evaluation)
    print(f"saved in {run / f'evaluation-{split}'}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    to: Annotated[Path, typer.Option("--to", help="Markdown file to write.")] = Path("outputs/model_report.md"),
) -> None:
    """Write the model report (TDSP) of a run from its evaluation on the test split.

    \b
    Example: medic report outputs/runs/regression --to outputs/model_report.md
    """
    from medic.modeling.report import write_report
    from medic.modeling.training.run import Run

    print(write_report(Run.load(run), _evaluate(run, "test"), to))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    to: Annotated[Path, typer.Option("--to", help="ONNX file to write.")] = Path("outputs/model.onnx"),
) -> None:
    """Export a run's best model to ONNX, and check that it agrees with torch.

    \b
    Example: medic export outputs/runs/regression --to outputs/regression.onnx
    """
    from medic.deployment.export import export as export_model
    from medic.modeling.training.run import Run

    print(export_model(Run.load(run).model(), to))


@app.command()
def package(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the bundle; outputs/bundles/ and the task's name when left.")
    ] = None,
    compress: Annotated[Compression, typer.Option("--compress", help="int8 is kept only if its gate passes.")] = (
        Compression.none
    ),
) -> None:
    """Make a bundle of a run: graph, manifest, model card, golden images, score.py; a folder and its .tar.gz.

    \b
    Example: medic package outputs/runs/regression --compress int8 --to outputs/bundles/regression
    """
    from medic.deployment.bundle.pipeline import package_run
    from medic.modeling.training.run import Run

    finished = Run.load(run)
    to = to or Path("outputs/bundles") / finished.task.name
    bundle, compressed = package_run(finished, _evaluate(run, "test"), to, int8=compress is Compression.int8)
    if compressed is not None:
        print(compressed)
    print(bundle)


@app.command()
def store(
    bundle: BundleArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
) -> None:
    """Put a verified copy of a bundle into a space. Stored again, nothing changes.

    \b
    Example: medic store outputs/bundles/retinopathy --space demo
             medic store outputs/bundles/retinopathy --target watsonx --space my-space
    """
    print(_target(target).store(bundle, space))


@app.command()
def deploy(
    bundle: BundleArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    name: Annotated[str | None, typer.Option("--name", help="Name of the deployment.")] = None,
    port: Annotated[int, typer.Option("--port", help="local: 0 takes any free one.")] = 0,
) -> None:
    """Store a bundle in a space and make it callable: by default a service on this machine that outlives this command.

    Under the name of a local deployment that runs, the new bundle takes over without a request being dropped.

    \b
    Example: medic deploy outputs/bundles/retinopathy --space demo --name eyes --port 8080
             medic deploy outputs/bundles/retinopathy --target azureml --name eyes
    """
    if target is not Target.local and port:
        raise MedicError(f"--port is for the target local; {target.value} gives the address")
    more = {"port": port} if target is Target.local else {}
    print(_target(target).deploy(bundle, space, name, **more))


@app.command()
def deployments(target: TargetOption = Target.local, space: SpaceOption = "default") -> None:
    """List the deployments of a space.

    \b
    Example: medic deployments --space demo
    """
    there = _target(target).deployments(space)
    print("\n".join(map(str, there)) or f"no deployment in the space {space!r} on {target.value}")


@app.command()
def status(name: NameArgument, target: TargetOption = Target.local, space: SpaceOption = "default") -> None:
    """Say how a deployment does, in one word: ready, starting, crashed or stopped.

    \b
    Example: medic status eyes --space demo
    """
    print(_target(target).find(name, space).status())


@app.command()
def score(
    where: Annotated[str, typer.Argument(help="A service's address, or the name of a deployment.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    token_file: TokenFileOption = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM file to trust, where the service's own is self-signed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Ask a service about images. What it refuses is named with its reason; the exit status is then 1.

    \b
    Example: medic score http://127.0.0.1:8080 left.jpeg right.jpeg
             medic score eyes left.jpeg --target watsonx --space my-space
    """
    from medic.deployment.client import Client, bearer
    from medic.deployment.service.server import read_token

    if "://" not in where:
        table = _target(target).find(where, space).score(images).to_frame([str(image) for image in images])
        print(table.to_json(orient="records", lines=True).strip() if as_json else table.to_string(index=False))
        return
    failed = 0
    with Client(where, headers=bearer(read_token(token_file)), certificate=certificate) as client:
        client.about()
        for image in images:
            try:
                answer = {"image": str(image), **client.answer(image)}
            except MedicError as error:
                answer, failed = {"image": str(image), "error": str(error)}, failed + 1
            print(json.dumps(answer, ensure_ascii=False) if as_json else _sentence(answer))
    if failed:
        raise MedicError(f"{failed} of {len(images)} images were not answered")


@app.command()
def delete(
    name: NameArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    bundle: Annotated[bool, typer.Option("--bundle", help="Remove the stored bundle, too.")] = False,
) -> None:
    """End a deployment and remove it, whole or half-made; its bundle stays in the space unless told otherwise.

    \b
    Example: medic delete eyes --space demo
    """
    there = _target(target)
    there.delete(there.find(name, space), bundle)
    print(f"deployment {name} deleted")


@app.command()
def serve(
    bundle: BundleArgument,
    host: Annotated[str, typer.Option("--host", help="Other than a loopback address needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 8080,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", help="Opens gRPC, too.")] = None,
    token_file: TokenFileOption = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="TLS certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key, PEM.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that compute; a core each when left.")
    ] = None,
) -> None:
    """Serve a bundle until Ctrl-C: a page for people at /, /predict for programs, /v2 and gRPC, /metrics.

    \b
    Example: medic serve outputs/bundles/retinopathy --port 8080
    Then:    curl --data-binary @eye.jpeg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/predict
    """
    from medic.deployment.service.limits import Limits, cores
    from medic.deployment.service.server import Door, read_token
    from medic.deployment.service.server import serve as serve_bundle
    from medic.deployment.service.telemetry import log_as_json

    log_as_json()
    door = Door(host, port, grpc_port, read_token(token_file), certificate, key)
    serve_bundle(bundle, door, limits=Limits(workers=workers or cores()))


@app.command()
def predict(
    images: Annotated[Path, typer.Argument(help="A folder or zip file of images.")] = Path("results/images"),
    model: Annotated[
        Path, typer.Option("--model", "-m", help="A run, a checkpoint's folder, or a bundle (folder or .tar.gz).")
    ] = Path("outputs/runs/latest"),
    to: Annotated[Path, typer.Option("--to", help="CSV file to write.")] = Path("results/result.csv"),
    both_eyes: Annotated[
        float | None,
        typer.Option("--both-eyes", help="Weight, 0 to 0.5, of the same patient's other eye (names such as 17_left)."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, whatever an interrupted run has left.")] = False,
) -> None:
    """Classify a folder of images into a CSV: name, prediction, probabilities. Bad images are rows with the reason.

    Rows come in the order of the names, and are written as they are made. Interrupted, it goes on; the images that it
    keeps must not have changed since.

    Where several findings can be there at once, each has a column of 0 and 1 as the model's operating point decides.
    There p_none is the product of (1 - p) over the findings; after a training whose loss was weighted by prevalence it
    ranks images, but is no calibrated probability.

    \b
    Example: medic predict results/images -m outputs/bundles/retinopathy --to results/result.csv
    """
    from medic.data.stores import is_image_name, open_store
    from medic.predict.batch import predict_to, start_over

    store = open_store(images)
    names = [name for name in store.names() if is_image_name(name)]
    if not names:
        raise MedicError(f"{images} holds no image files; put JPEG, PNG or DICOM files there")
    loaded, at_once = _load_model(model)
    if fresh:
        start_over(to)
    written = predict_to(loaded, store, names, to, both_eyes=both_eyes, at_once=at_once)
    if written.both_eyes:
        print(written.both_eyes)
    print(f"{written.predicted} images predicted in {to}")
    for name, error in written.first_failed:
        print(f"skipped {name}: {error.partition(': ')[2]}", file=sys.stderr)
    if (more := written.failed - len(written.first_failed)) > 0:
        print(f"skipped {more} more; the column error in {to} says why", file=sys.stderr)


@app.command()
def run(
    data: DataOption = Path("sample_data"),
    profile: Annotated[str, typer.Option("--profile", help="quick or full.")] = "quick",
    outputs: Annotated[Path, typer.Option("--outputs", help="Where everything goes.")] = Path("outputs"),
    only: Annotated[list[str] | None, typer.Option("--only", help="Notebooks, such as 02_modeling/03; repeatable.")] = (
        None
    ),
    again: Annotated[bool, typer.Option("--again", help="Run also what is done already.")] = False,
) -> None:
    """Run the notebooks headless, and write outputs/index.html. Interrupted, it goes on with what is not yet done.

    \b
    Example: medic run --data ../shared/data --only 02_modeling
    """
    from medic.notebooks.run import Plan, run_series
    from medic.notebooks.session import find_root

    series = run_series(Plan(find_root(Path.cwd()), data, profile, outputs, only=tuple(only or ()), again=again))
    print(f"see {series.page}")
    if series.failed:
        raise MedicError(f"{len(series.failed)} notebooks failed: {', '.join(o.notebook for o in series.failed)}")


def _target(target: Target):
    from medic.deployment.targets import find_target

    return find_target(target.value)


def _sentence(answer: dict) -> str:
    """One answer of a service as a line for a person."""
    if "error" in answer:
        return f"{answer['image']}: {answer['error']}"
    chances = answer["probabilities"]
    if "classes" in answer:
        decided = ", ".join(f"{name} {chances[name]:.2f}" for name in answer["classes"]) or "none of the findings"
    else:
        decided = f"{answer['class']} {chances[answer['class']]:.2f}"
    return f"{answer['image']}: {decided}"


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


def _read(
    task: str, data: Path, images: Path | None, level: int | None = None, looked_for: str | None = None
) -> tuple[pd.DataFrame, Store, Task, DataSet]:
    from medic.data.readers import OWN, data_set_of
    from medic.task import find_task

    line = OWN if task == OWN.name else data_set_of(find_task(task))
    if line is not OWN and (level, looked_for) != (None, None):
        raise MedicError(f"--level and --looked-for are for images of your own; {task} has its own classes")
    records, store = line.read(line.find(data), images, **({} if level is None else {"level": level}))
    if looked_for is not None:
        records = line.looking_for(records, looked_for)
    return records, store, line.task(records) if line is OWN else find_task(task), line


def _split(records: pd.DataFrame, task: Task, test: float | None, seed: int) -> pd.DataFrame:
    from medic.data.split import complete_splits, split_by_patient

    if test is not None:
        return split_by_patient(records, test=test, seed=seed, task=task)
    if not (records["split"] == "test").any():
        print("the source has no test split: 20 % of the patients are set aside for it")
    return complete_splits(records, seed=seed, task=task)


def _varied(recipe: Recipe, strength: float):
    """The recipe's augmentation with another strength."""
    if not hasattr(recipe.augmentation, "scaled") or strength < 0:
        raise MedicError(
            f"{type(recipe.augmentation).__name__} cannot have the strength {strength:g}; give one from 0 on, and a "
            "recipe with the default augmentation"
        )
    return recipe.augmentation.scaled(strength)


def _report_skipped(prepared: Prepared) -> None:
    for row in prepared.skipped.itertuples():
        print(f"skipped {row.image}: {row.reason}, {row.detail}", file=sys.stderr)


def _evaluate(run: Path, split: str) -> Evaluation:
    from medic.modeling.evaluate import evaluate as evaluate_run
    from medic.modeling.training.run import Run

    evaluation = evaluate_run(Run.load(run), split)
    evaluation.save(run / f"evaluation-{split}")
    return evaluation


def _load_model(path: Path) -> tuple[Model, int]:
    """A run's best model, a checkpoint or a bundle, whatever lies there; and how many of its calls suit all cores."""
    if (path / "run.json").is_file():
        from medic.modeling.training.run import Run

        return Run.load(path).model(), 1
    if (path / "model.json").is_file():
        from medic.modeling.classifier import Classifier

        return Classifier.load(path), 1
    from medic.data.parallel import usable_cores
    from medic.deployment.bundle import Bundle

    # A core a batch is faster than all cores for each: between the layers of a network they would wait.
    return Bundle.load(path).predictor(threads=1), usable_cores()


if __name__ == "__main__":
    main()
