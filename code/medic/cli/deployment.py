"""The commands of the deployment stage: export, package, score, serve, predict, drift."""

import json
import socket
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from medic.cli import options
from medic.cli.modeling import evaluate_and_save
from medic.cli.targets import ask
from medic.errors import MedicError
from medic.files import write_bytes

if TYPE_CHECKING:
    from medic.data.prepare import Prepared
    from medic.modeling.training.run import Run
    from medic.predict import Model

app = typer.Typer()

JUDGED = 1000
"""Images that int8 is judged on, at least."""


@app.command()
def export(
    run: options.RunArgument = Path("outputs/runs/latest"),
    to: Annotated[Path, Option(help="ONNX file to write.")] = Path("outputs/model.onnx"),
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
    run: options.RunArgument = Path("outputs/runs/latest"),
    to: Annotated[Path | None, Option(help="The bundle; else outputs/bundles/ and the task.")] = None,
    compress: Annotated[Literal["none", "int8"], Option(help="int8 is kept only if its gate passes.")] = "none",
) -> None:
    """Make a bundle of a run: graph, manifest, model card, golden images, score.py; a folder and its .tar.gz.

    \b
    Example: medic package outputs/runs/regression --compress int8 --to outputs/bundles/regression
    """
    from medic.deployment.bundle.pipeline import package_run
    from medic.modeling.training.run import Run

    finished = Run.load(run)
    to = to or Path("outputs/bundles") / finished.task.name
    evaluation, int8 = evaluate_and_save(run, "test"), compress == "int8"
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw_images(finished, Path(scratch)) if int8 else None
        bundle, compressed = package_run(finished, evaluation, to, int8=int8, drawn=drawn)
    if compressed is not None:
        print(compressed)
    print(bundle)


def draw_images(run: "Run", folder: Path) -> "Prepared | None":
    """Draw images for the gate of int8 where the validation split has fewer than it needs; None where none can be."""
    from medic.data.prepare import prepare
    from medic.data.readers import DATA_SETS
    from medic.sample import SAMPLES

    name = next((name for name in SAMPLES if run.task.name.startswith(name)), None)
    if name is None or len(run.prepared.split("validation")) >= JUDGED:
        return None
    print(f"int8 is judged on {JUDGED:,} drawn, synthetic images too: the validation split has fewer")
    SAMPLES[name].write(folder / name, patients=JUDGED // 2 if name == "retinopathy" else JUDGED, seed=1)
    return prepare(*DATA_SETS[name].read(folder / name), folder / "prepared", run.prepared.preprocessing)


@app.command()
def score(
    where: Annotated[str, Argument(help="A service's address, or the name of a deployment.")],
    images: Annotated[list[Path], Argument(help="Image files.")],
    target: options.TargetOption = "local",
    space: options.SpaceOption = "default",
    token_file: options.TokenFileOption = None,
    certificate: Annotated[
        Path | None, Option(help="PEM file to trust, where the service's own is self-signed.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object a line, for machines.")] = False,
    dry_run: options.DryRunOption = False,
) -> None:
    """Ask a service about images. What it refuses is named with its reason; the exit status is then 1.

    \b
    Example: medic score http://127.0.0.1:8080 left.jpeg right.jpeg
             medic score eyes left.jpeg --target watsonx --space my-space
    """
    from medic.deployment.client import Client, bearer
    from medic.deployment.service.server import read_token
    from medic.deployment.targets.recording import known

    def tell(service: AbstractContextManager[Client]) -> None:
        failed = 0
        with service as asked:
            for image in images:
                try:
                    answer = known(asked.answer(image))
                except MedicError as error:
                    answer, failed = {"error": str(error)}, failed + 1
                answer = {"image": str(image), **answer}
                print(json.dumps(answer, ensure_ascii=False) if as_json else _sentence(answer))
        if failed:
            raise MedicError(f"{failed} of {len(images)} images were not answered")

    if "://" in where:
        client = Client(where, headers=bearer(read_token(token_file)), certificate=certificate)
        client.about()
        tell(client)
    else:
        ask(target, dry_run, lambda there: tell(there.find(where, space).service()))


def _sentence(answer: dict) -> str:
    """One answer of a service as a line for a person."""
    from medic.referral import advise

    if "error" in answer:
        return f"{answer['image']}: {answer['error']}"
    names = [answer["class"]] if "class" in answer else answer["classes"]
    said = ", ".join(f"{name} {answer['probabilities'][name]:.2f}" for name in names) or "none of the findings"
    return f"{answer['image']}: {said}" + (f" ({advise(answer)})" if answer.get("refer") else "")


@app.command()
def serve(
    bundle: options.BundleArgument,
    host: Annotated[str, Option(help="Other than a loopback address needs a token.")] = "127.0.0.1",
    port: Annotated[int, Option(help="0 takes any free one.")] = 8080,
    grpc_port: Annotated[int | None, Option(help="Opens gRPC, too.")] = None,
    token_file: options.TokenFileOption = None,
    certificate: Annotated[Path | None, Option(help="TLS certificate, PEM.")] = None,
    key: Annotated[Path | None, Option(help="Its private key, PEM.")] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes; a core each when left.")] = None,
    counts: Annotated[
        Path | None, Option("--counts", help="Folder for counts of the answers by the hour, for medic drift.")
    ] = None,
    name: Annotated[str | None, Option("--name", help="What the deployment is called.")] = None,
    descriptor: Annotated[int | None, Option("--descriptor", hidden=True)] = None,
) -> None:
    """Serve a bundle until Ctrl-C: a page for people at /, /predict for programs, /v2 and gRPC, /metrics.

    \b
    Example: medic serve outputs/bundles/retinopathy --port 8080
    Then:    curl --data-binary @eye.jpeg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/predict
    """
    from medic.deployment.service.middleware import log_as_json
    from medic.deployment.service.server import ServerConfig, read_token
    from medic.deployment.service.server import serve as serve_bundle

    log_as_json()
    config = ServerConfig(host, port, grpc_port, read_token(token_file), certificate, key, name, workers, counts)
    # The socket that `medic deploy` has bound before it started this process.
    serve_bundle(bundle, config, None if descriptor is None else socket.socket(fileno=descriptor))


@app.command()
def predict(
    images: Annotated[Path, Argument(help="A folder or zip file of images.")] = Path("results/images"),
    model: Annotated[
        Path, Option("--model", "-m", help="A run, a checkpoint's folder, or a bundle (folder or .tar.gz).")
    ] = Path("outputs/runs/latest"),
    to: Annotated[Path, Option(help="CSV file to write.")] = Path("results/result.csv"),
    tta: Annotated[bool, Option("--tta", help="The mean over image and mirror image; twice the work.")] = False,
    fresh: Annotated[bool, Option("--fresh", help="Start over, whatever an interrupted run has left.")] = False,
    scheduler: options.SchedulerOption = None,
) -> None:
    """Classify a folder of images into a CSV: name, prediction, probabilities. Bad images are rows with the reason.

    A calibrated model adds the set of possible classes, refer (1 where a person should decide) and why.

    Rows come in the order of the names. Interrupted, it goes on; the images that it keeps must not have changed since.

    Where several findings can be there at once, each has a column of 0 and 1 as the model's operating point decides.
    There p_none is the product of (1 - p) over the findings; after a training whose loss was weighted by prevalence it
    ranks images, but is no calibrated probability.

    \b
    Example: medic predict results/images -m outputs/bundles/retinopathy --to results/result.csv
    """
    from medic.data.stores import open_store
    from medic.predict import MeanOverFlips
    from medic.predict.batch import predict_to

    store = open_store(images)
    names = store.images()
    if not names:
        raise MedicError(f"{images} holds no image files; put JPEG, PNG or DICOM files there")
    if scheduler and not (model / "manifest.json").is_file():
        raise MedicError(f"a cluster needs the folder of a bundle, and {model} is none; make one with medic package")
    loaded, at_once = _load_model(model)
    if tta:
        loaded = MeanOverFlips(loaded, ("horizontal",))
    if fresh:
        write_bytes(f"{to}.partial", b"")
    written = predict_to(loaded, store, names, to, at_once=at_once, scheduler=scheduler)
    print(f"{written.predicted} images predicted in {to}")
    print(f"probabilities: {written.referral or 'not calibrated'}")
    for name, error in list(written.failed.items())[:20]:
        print(f"skipped {name}: {error}", file=sys.stderr)
    if (more := len(written.failed) - 20) > 0:
        print(f"skipped {more} more; the column error in {to} says why", file=sys.stderr)


def _load_model(path: Path) -> "tuple[Model, int]":
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


@app.command()
def drift(
    where: Annotated[list[str], Argument(help="A local deployment's name, or files of counts (drift-*.jsonl).")],
    space: options.SpaceOption = "default",
    by: Annotated[Literal["day", "hour"], Option(help="How often it looks.")] = "day",
    as_json: Annotated[bool, Option("--json", help="One JSON object a look and property, for machines.")] = False,
) -> None:
    """Say what moved since the model was tested: images (brightness, sharpness, size, distance), decisions, prevalence.

    A service counts what it answers by the hour, and never keeps an image. Of a hundred weeks in which nothing changes,
    a change is reported in five at most.

    \b
    Example: medic drift eyes --space demo
             medic drift counts/drift-*.jsonl --by hour --json
    """
    from medic.deployment.counts import read_counts
    from medic.deployment.drift import compare
    from medic.deployment.targets.local import find

    files: list[str | Path] = list(where)
    if len(where) == 1 and not Path(where[0]).is_file():
        deployment = find(where[0], space)
        files = sorted(deployment.folder.glob(f"drift-{deployment.bundle}-*.jsonl"))
    found = compare(*read_counts(files), by)
    print(found.looks.to_json(orient="records", lines=True).strip() if as_json else found)
