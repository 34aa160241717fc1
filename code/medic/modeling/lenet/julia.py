"""Programs in Julia, started from Python: arrays go in as IDX files, one line of JSON an epoch comes out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medic.data.stores import idx
from medic.errors import MedicError

INSTALL = """install Julia 1.6 (julialang.org/downloads/oldreleases), then run
  julia -e 'using Pkg; Pkg.add(name="Knet", version="1.4.10")'"""
_LAST_LINES = 6


@dataclass(frozen=True)
class Julia:
    """What is there to run a program with.

    Attributes:
        command: the ``julia`` that has the package; None where there is none.
        missing: a few words on what is missing; empty where nothing is.
    """

    command: str | None
    missing: str = ""

    def __str__(self) -> str:
        return f"Julia: {self.command and Path(self.command).name}" if self.command else f"{self.missing}; {INSTALL}"


def find_julia(package: str = "Knet") -> Julia:
    """Look for ``julia`` on the path, and for the package in it; without Julia this takes no time."""
    command = shutil.which("julia")
    if command is None:
        return Julia(None, "Julia is not installed")
    # To load Knet takes seconds; to look for it does not.
    probe = f'exit(Base.find_package("{package}") === nothing ? 3 : 0)'
    try:
        ended = subprocess.run(
            [command, "--startup-file=no", "-e", probe], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return Julia(None, "Julia does not start")
    return Julia(command) if ended.returncode == 0 else Julia(None, f"Julia lacks the package {package}")


def run_julia(
    julia: Julia, program: str | os.PathLike, options: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> Iterator[dict[str, float]]:
    """Start a program and give what it says, line by line as it says it.

    Args:
        julia: as ``find_julia`` gives it.
        program: the program's file.
        options: ``{"learning-rate": 0.002}`` becomes ``--learning-rate 0.002``.
        arrays: the same for arrays, which are handed over as IDX files for as long as the program runs.

    Yields:
        The object of each line of JSON.

    Raises:
        MedicError: there is no Julia, the program ends with an error (its last words are in the message), or it says
            something that is no object of JSON.
    """
    if julia.command is None:
        raise MedicError(f"{Path(program).name} cannot run: {julia}")
    with tempfile.TemporaryDirectory(prefix="medic-julia-") as folder, tempfile.TemporaryFile("w+") as errors:
        files = {name: Path(folder) / name for name in arrays}
        for name, array in arrays.items():
            idx.write(files[name], array)
        given = [part for name, value in {**options, **files}.items() for part in (f"--{name}", str(value))]
        # -O1: the highest level on which Knet was seen to work on Julia 1.5.
        command = [julia.command, "--startup-file=no", "-O1", os.fspath(program), *given]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            try:
                for line in process.stdout:
                    yield _object(line, program)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines()[-_LAST_LINES:] or ["nothing"]
            raise MedicError(f"{Path(program).name} ended with {process.returncode} and said: {' / '.join(said)}")


def _object(line: str, program: str | os.PathLike) -> dict[str, float]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MedicError(
            f"{Path(program).name} said {line.strip()!r}, which is no object of JSON; it prints those only"
        )
    return value
