"""The command that watches a service: drift."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medic.cli.options import SpaceOption

app = typer.Typer()


class Period(StrEnum):
    """How often ``drift`` looks."""

    day = "day"
    hour = "hour"


@app.command()
def drift(
    where: Annotated[list[str], typer.Argument(help="A local deployment's name, or files of counts (drift-*.jsonl).")],
    space: SpaceOption = "default",
    by: Annotated[Period, typer.Option("--by", help="How often it looks.")] = Period.day,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look and property, for machines.")] = False,
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
    found = compare(*read_counts(files), by.value)
    print(found.looks.to_json(orient="records", lines=True).strip() if as_json else found)
