"""The commands that put a bundle on this machine, into a cloud or onto a cluster: store, deploy, status, delete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated

import typer

from medic.cli.options import BundleArgument, DryRunOption, NameArgument, SpaceOption, Target, TargetOption
from medic.errors import MedicError

app = typer.Typer()


@app.command()
def store(
    bundle: BundleArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    dry_run: DryRunOption = False,
) -> None:
    """Put a verified copy of a bundle into a space. Stored again, nothing changes.

    \b
    Example: medic store outputs/bundles/retinopathy --space demo
             medic store outputs/bundles/retinopathy --target watsonx --space my-space
    """
    with asking(target, dry_run) as there:
        answered = there.store(bundle, space)
    if not dry_run:
        print(answered)


@app.command()
def deploy(
    bundle: BundleArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    name: Annotated[str | None, typer.Option("--name", help="Name of the deployment.")] = None,
    port: Annotated[int, typer.Option("--port", help="local: 0 takes any free one.")] = 0,
    dry_run: DryRunOption = False,
) -> None:
    """Store a bundle in a space and make it callable: by default a service on this machine that outlives this command.

    Under the name of a local deployment that runs, the new bundle takes over without a request being dropped.

    \b
    Example: medic deploy outputs/bundles/retinopathy --space demo --name eyes --port 8080
             medic deploy outputs/bundles/retinopathy --target azureml --name eyes --dry-run
    """
    if target is not Target.local and port:
        raise MedicError(f"--port is for the target local; {target.value} gives the address")
    more = {"port": port} if target is Target.local else {}
    with asking(target, dry_run) as there:
        answered = there.deploy(bundle, space, name, **more)
    if not dry_run:
        print(answered)


@app.command()
def deployments(target: TargetOption = Target.local, space: SpaceOption = "default") -> None:
    """List the deployments of a space.

    \b
    Example: medic deployments --space demo
    """
    from medic.deployment.targets import find_target

    there = find_target(target.value).deployments(space)
    print("\n".join(map(str, there)) or f"no deployment in the space {space!r} on {target.value}")


@app.command()
def status(
    name: NameArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    dry_run: DryRunOption = False,
) -> None:
    """Say how a deployment does, in one word: ready, starting, crashed or stopped.

    \b
    Example: medic status eyes --space demo
    """
    with asking(target, dry_run) as there:
        answered = there.find(name, space).status()
    if not dry_run:
        print(answered)


@app.command()
def delete(
    name: NameArgument,
    target: TargetOption = Target.local,
    space: SpaceOption = "default",
    bundle: Annotated[bool, typer.Option("--bundle", help="Remove the stored bundle, too.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """End a deployment and remove it, whole or half-made; its bundle stays in the space unless told otherwise.

    \b
    Example: medic delete eyes --space demo
    """
    with asking(target, dry_run) as there:
        there.find(name, space).delete(bundle)
    if not dry_run:
        print(f"deployment {name} deleted")


@contextlib.contextmanager
def asking(target: Target, dry_run: bool) -> Iterator[ModuleType]:
    """Give the target; in a dry run it prints its calls instead of making them."""
    from medic.deployment.targets import find_target, recording

    if not dry_run:
        yield find_target(target.value)
        return
    if target is Target.local:
        raise MedicError("--dry-run is for a cloud or a cluster; name one with --target")
    with recording.dry_run():
        yield find_target(target.value)
