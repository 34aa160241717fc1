"""The commands that put a bundle on this machine, into a cloud or onto a cluster: store, deploy, status, delete."""

import contextlib
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any

import typer

from medic.cli.options import BundleArgument, DryRunOption, NameArgument, SpaceOption, Target, TargetOption
from medic.errors import MedicError

app = typer.Typer()


@app.command()
def store(
    bundle: BundleArgument,
    target: TargetOption = "local",
    space: SpaceOption = "default",
    dry: DryRunOption = False,
) -> None:
    """Put a verified copy of a bundle into a space. Stored again, nothing changes.

    Example: medic store outputs/bundles/retinopathy --target watsonx --space my-space
    """
    ask(target, dry, lambda there: there.store(bundle, space))


@app.command()
def deploy(
    bundle: BundleArgument,
    target: TargetOption = "local",
    space: SpaceOption = "default",
    name: Annotated[str | None, typer.Option("--name", help="Name of the deployment.")] = None,
    port: Annotated[int, typer.Option("--port", help="local: 0 takes any free one.")] = 0,
    dry: DryRunOption = False,
) -> None:
    """Store a bundle in a space and make it callable: by default a service on this machine that outlives this command.

    Under the name of a local deployment that runs, the new bundle takes over without a request being dropped.

    \b
    Example: medic deploy outputs/bundles/retinopathy --space demo --name eyes --port 8080
             medic deploy outputs/bundles/retinopathy --target azureml --name eyes --dry-run
    """
    if target != "local" and port:
        raise MedicError(f"--port is for the target local; {target} gives the address")
    more = {"port": port} if port else {}
    ask(target, dry, lambda there: there.deploy(bundle, space, name, **more))


@app.command()
def deployments(target: TargetOption = "local", space: SpaceOption = "default") -> None:
    """List the deployments of a space.

    Example: medic deployments --space demo
    """
    nothing = f"no deployment in the space {space!r} on {target}"
    ask(target, False, lambda there: "\n".join(map(str, there.deployments(space))) or nothing)


@app.command()
def status(
    name: NameArgument, target: TargetOption = "local", space: SpaceOption = "default", dry: DryRunOption = False
) -> None:
    """Say how a deployment does, in one word: ready, starting, crashed or stopped.

    Example: medic status eyes --space demo
    """
    ask(target, dry, lambda there: there.find(name, space).state)


@app.command()
def delete(
    name: NameArgument,
    target: TargetOption = "local",
    space: SpaceOption = "default",
    bundle: Annotated[bool, typer.Option("--bundle", help="Remove the stored bundle, too.")] = False,
    dry: DryRunOption = False,
) -> None:
    """End a deployment and remove it, whole or half-made; its bundle stays in the space unless told otherwise.

    Example: medic delete eyes --space demo
    """
    ask(target, dry, lambda there: there.find(name, space).delete(bundle) or f"deployment {name} deleted")


def ask(target: Target, dry_run: bool, question: Callable[[ModuleType], Any]) -> None:
    """Ask a target, and print its answer, if any; in a dry run print instead what its cloud would be asked."""
    from medic.deployment.targets import recording

    if dry_run and target == "local":
        raise MedicError("--dry-run is for a cloud or a cluster; name one with --target")
    try:
        there = importlib.import_module(f"medic.deployment.targets.{target}")
    except ModuleNotFoundError as error:
        raise MedicError(f"{target} needs {error.name}; run: pip install 'medic[serve,cloud]'") from error
    answer = None
    with recording.dry_run() if dry_run else contextlib.nullcontext():
        answer = question(there)
    if answer is not None and not dry_run:
        print(answer)
