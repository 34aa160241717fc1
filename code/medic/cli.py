"""The command line: each step of the series as one command. Every ``--help`` ends with an example."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medic.errors import MedicError

if TYPE_CHECKING:
    from medic.data.prepare import Prepared
    from medic.modeling.evaluate import Evaluation
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
TaskArgument = Annotated[str, typer.Argument(help="What is predicted: retinopathy.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Folder or zip of the images, when elsewhere.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Fixes splits, order, augmentation and weights.")]
SizeOption = Annotated[int, typer.Option("--size", help="Side of the prepared images in pixels.")]
TestOption = Annotated[
    float | None, typer.Option("--test", help="Share of patients for testing; by default the source's own test split.")
]
SpaceOption = Annotated[str, typer.Option("--space", help="Name of the space that holds the deployment.")]


class ObjectiveName(StrEnum):
    """Objectives by name."""

    cross_entropy = "cross_entropy"
    regression = "regression"


class Compression(StrEnum):
    """What ``package`` may do to the graph."""

    none = "none"
    int8 = "int8"


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
) -> None:
    """Fetch a public set from its home: progress, resume, checksum, licence. Where a login is needed, how to do it.

    \b
    Example: medic download retinamnist --folder data
    """
    from medic.data.download import download as fetch_set

    print(fetch_set(name, folder, size=size))


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="An absent or empty folder, or an earlier sample.")],
    patients: Annotated[int, typer.Option("--patients", help="Two photographs each; at least 40.")] = 110,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 2026,
) -> None:
    """Write a synthetic set of fundus photographs in the published layout.

    \b
    Example: medic sample outputs/more_eyes/retinopathy --patients 200 --seed 7
    """
    from medic.data.synthetic import write_sample

    records = write_sample(folder, patients=patients, seed=seed)
    print(f"{len(records)} synthetic photographs of {patients} made-up patients in {folder}")


@app.command()
def describe(
    task: TaskArgument,
    data: DataOption = Path("sample_data"),
    images: ImagesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say what a data set holds: images, patients, classes by split, what is missing. No image is opened.

    \b
    Example: medic describe retinopathy --data ../shared/data
    """
    from medic.data.describe import describe as describe_records
    from medic.task import find_task

    found = find_task(task)
    records, store = _read(found, data, images)
    description = describe_records(records, store, found)
    print(json.dumps(description.to_dict(), indent=2) if as_json else description)


@app.command()
def prepare(
    task: TaskArgument,
    data: DataOption = Path("sample_data"),
    images: ImagesOption = None,
    to: Annotated[Path, typer.Option("--to", help="Folder of the prepared set.")] = Path("outputs/prepared"),
    size: SizeOption = 256,
    test: TestOption = None,
    seed: SeedOption = 0,
) -> None:
    """Check, split by patient, crop and scale once. Interrupted, it goes on; repeated, it does only what is new.

    \b
    Example: medic prepare retinopathy --data ../shared/data --size 384 --to outputs/prepared/mine
    """
    from medic.data.balance import class_counts
    from medic.task import find_task

    found = find_task(task)
    prepared = _prepare(found, data, images, to, size, test, seed)
    print(class_counts(prepared.records, found).to_string())
    print(f"{len(prepared.records)} images prepared at {size} px in {to}")
    _report_skipped(prepared)


@app.command()
def train(
    task: TaskArgument,
    prepared: Annotated[Path, typer.Option("--prepared", "-d", help="Prepared set (medic prepare).")] = Path(
        "outputs/prepared"
    ),
    to: Annotated[Path, typer.Option("--to", help="Folder of the run.")] = Path("outputs/runs/latest"),
    backbone: Annotated[str, typer.Option("--backbone", "-n", help="A torchvision network.")] = "resnet18",
    objective: Annotated[ObjectiveName, typer.Option("--objective", help="Loss and decoding.")] = (
        ObjectiveName.cross_entropy
    ),
    weights: Annotated[
        str | None, typer.Option("--weights", help="imagenet, or a saved model's folder; from scratch without.")
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", help="Side of the network's input in pixels.")] = 224,
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Passes over the training images.")] = 20,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak of the schedule.")] = 1e-3,
    balanced: Annotated[bool, typer.Option("--balanced", help="Draw every class equally often.")] = False,
    workers: Annotated[int, typer.Option("--workers", help="Processes that load images.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Train a network. Killed and started again, it ends with the same result as if nothing had happened.

    \b
    Example: medic train retinopathy -e 30 --image-size 192 --objective regression --to outputs/runs/regression
    """
    import torch

    from medic.data.prepare import Prepared
    from medic.modeling.classifier import Classifier
    from medic.modeling.fit import Recipe, fit
    from medic.modeling.objectives import objective_from_dict
    from medic.task import find_task

    prepared_set = Prepared.load(prepared)
    torch.manual_seed(seed)
    model = Classifier(
        find_task(task),
        backbone,
        objective_from_dict({"name": objective.value}),
        prepared_set.preprocessing,
        image_size,
        weights,
    )
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        balanced=balanced,
        seed=seed,
        workers=workers,
    )
    run = fit(model, prepared_set, to, recipe)
    print(f"best epoch {run.about['best_epoch']} of {epochs}; the run is in {to}")


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
    from medic.modeling.run import Run

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
    from medic.modeling.run import Run

    print(export_model(Run.load(run).model(), to))


@app.command()
def package(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")] = Path("outputs/runs/latest"),
    to: Annotated[Path, typer.Option("--to", help="Folder of the bundle.")] = Path("outputs/bundles/retinopathy"),
    compress: Annotated[Compression, typer.Option("--compress", help="int8 is kept only if its gate passes.")] = (
        Compression.none
    ),
) -> None:
    """Make a bundle of a run: graph, manifest, model card, golden images, score.py; a folder and its .tar.gz.

    \b
    Example: medic package outputs/runs/regression --compress int8 --to outputs/bundles/regression
    """
    from medic.deployment.pipeline import package_run
    from medic.modeling.run import Run

    finished = Run.load(run)
    bundle, compressed = package_run(finished, _evaluate(run, "test"), to, int8=compress is Compression.int8)
    if compressed is not None:
        print(compressed)
    print(bundle)


@app.command()
def deploy(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder or .tar.gz.")],
    space: SpaceOption = "default",
    name: Annotated[str | None, typer.Option("--name", help="Name of the deployment.")] = None,
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 0,
) -> None:
    """Store a bundle in a space and start a service for it that outlives this command.

    \b
    Example: medic deploy outputs/bundles/retinopathy --space demo --name eyes --port 8080
    """
    from medic.deployment.targets import local

    print(local.deploy(bundle, space, name, port))


@app.command()
def deployments(space: SpaceOption = "default") -> None:
    """List the deployments of a space.

    \b
    Example: medic deployments --space demo
    """
    from medic.deployment.targets import local

    there = local.deployments(space)
    print("\n".join(map(str, there)) or f"no deployment in the space {space!r}")


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the deployment.")],
    space: SpaceOption = "default",
) -> None:
    """Stop a deployment and remove it; its bundle stays in the space.

    \b
    Example: medic delete eyes --space demo
    """
    from medic.deployment.targets import local

    local.delete(local.find(name, space))
    print(f"deployment {name} deleted")


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder or .tar.gz.")],
    host: Annotated[str, typer.Option("--host", help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 8080,
) -> None:
    """Serve a bundle until Ctrl-C.

    \b
    Example: medic serve outputs/bundles/retinopathy --port 8080
    Then:    curl --data-binary @eye.jpeg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/predict
    """
    from medic.deployment.serve import serve as serve_bundle

    serve_bundle(bundle, host, port)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run, a checkpoint's folder, or a bundle (folder or .tar.gz).")],
    images: Annotated[Path, typer.Argument(help="A folder or zip file of images.")] = Path("results/images"),
    to: Annotated[Path, typer.Option("--to", help="CSV file to write.")] = Path("results/result.csv"),
) -> None:
    """Classify a folder of images into a CSV: name, prediction, probabilities. Bad images are named with the reason.

    \b
    Example: medic predict outputs/bundles/retinopathy results/images --to results/result.csv
    """
    from medic.data.stores import is_image_name, open_store
    from medic.files import replacing
    from medic.predict import predict as predict_images

    store = open_store(images)
    names = [name for name in store.names() if is_image_name(name)]
    if not names:
        raise MedicError(f"{images} holds no image files; put JPEG or PNG files there")
    predicted = predict_images(_load_model(model), store, names)
    with replacing(to) as temporary:
        predicted.to_frame().to_csv(temporary, index=False, float_format="%.6f")
    print(f"{len(predicted.names)} images predicted in {to}")
    for row in predicted.failed.itertuples():
        print(f"skipped {row.image}: {row.detail}", file=sys.stderr)


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
    from medic.notebooks import find_root
    from medic.series import Plan, run_series

    series = run_series(Plan(find_root(Path.cwd()), data, profile, outputs, only=tuple(only or ()), again=again))
    print(f"see {series.page}")
    if series.failed:
        raise MedicError(f"{len(series.failed)} notebooks failed: {', '.join(o.notebook for o in series.failed)}")


def _read(task: Task, data: Path, images: Path | None):
    from medic.data.readers import retinopathy

    candidates = (data / task.name, data / f"{task.name}.zip", data)
    return retinopathy.read(next(path for path in candidates if path.exists() or path == data), images)


def _prepare(
    task: Task, data: Path, images: Path | None, to: Path, size: int, test: float | None, seed: int
) -> Prepared:
    from medic.data.prepare import prepare as prepare_images
    from medic.data.preprocess import Preprocessing
    from medic.data.split import complete_splits, split_by_patient

    records, store = _read(task, data, images)
    if test is None:
        if not (records["split"] == "test").any():
            print("the source has no test split: 20 % of the patients are set aside for it")
        records = complete_splits(records, seed=seed)
    else:
        records = split_by_patient(records, test=test, seed=seed)
    return prepare_images(records, store, to, Preprocessing(size=size))


def _report_skipped(prepared: Prepared) -> None:
    for row in prepared.skipped.itertuples():
        print(f"skipped {row.image}: {row.reason}, {row.detail}", file=sys.stderr)


def _evaluate(run: Path, split: str) -> Evaluation:
    from medic.modeling.evaluate import evaluate as evaluate_run
    from medic.modeling.run import Run

    evaluation = evaluate_run(Run.load(run), split)
    evaluation.save(run / f"evaluation-{split}")
    return evaluation


def _load_model(path: Path):
    """A run's best model, a checkpoint or a bundle: whatever lies there."""
    if (path / "run.json").is_file():
        from medic.modeling.run import Run

        return Run.load(path).model()
    if (path / "model.json").is_file():
        from medic.modeling.classifier import Classifier

        return Classifier.load(path)
    from medic.deployment.bundle import Bundle

    return Bundle.load(path).predictor()


if __name__ == "__main__":
    main()
