"""The command line: each step of the series as one command. Every ``--help`` ends with an example."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from medic.cli import data, deployment, modeling, options, targets
from medic.errors import MedicError

app = typer.Typer(
    name="medic",
    help="Medical image classification, from pixels to endpoint. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for room in (data, modeling, deployment, targets):
    app.add_typer(room.app)


@app.command()
def run(
    data: options.DataOption = Path("sample_data"),
    profile: Annotated[str, Option(help="quick or full.")] = "quick",
    outputs: Annotated[Path, Option(help="Where everything goes.")] = Path("outputs"),
    only: Annotated[list[str] | None, Option(help="Such as 02_modeling/03; repeatable.")] = None,
    again: Annotated[bool, Option("--again", help="Run also what is done already.")] = False,
) -> None:
    """Run the notebooks headless, and write outputs/index.html. Interrupted, it goes on with what is not yet done.

    \b
    Example: medic run --data ../shared/data --only 02_modeling
    """
    from medic.notebooks.run import run_series
    from medic.notebooks.session import find_root

    root = find_root(Path.cwd())
    outcomes = run_series(root, data, profile, outputs, only or (), again)
    print(f"see {root / outputs / 'index.html'}")
    if failed := [outcome.notebook for outcome in outcomes if outcome.status == "failed"]:
        raise MedicError(f"{len(failed)} notebooks failed: {', '.join(failed)}")


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
