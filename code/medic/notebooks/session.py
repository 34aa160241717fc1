"""What notebooks call: `begin`, `record`, `show_source`; and `recorded`, which reads the scalars back."""

import importlib.metadata
import importlib.util
import inspect
import json
import math
import os
import platform
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError

PROFILES = ("quick", "full")
SAMPLE = "sample_data"
SYNTHETIC_NOTICE = "SYNTHETIC sample: nothing here is clinical"
SMALL_NOTICE = "SMALL sample: real images, too few to compare with anything published"
SCALAR_MIME = "application/vnd.medic.scalar+json"

PARAMETERS = {
    "a whole number from 0 on": (lambda value: isinstance(value, int) and value >= 0, "SEED PORT"),
    "a whole number from 1 on": (
        lambda value: isinstance(value, int) and value >= 1,
        "PAIRS PREVIEWS MEASURED SHOWN OPENED TRAINING_IMAGES TEST_IMAGES CALIBRATION_IMAGES IMAGES COPIES EPOCHS "
        "LESION_EPOCHS BATCH_SIZE REPEATS IMAGE_SIZE DRAWS MIN_PATIENTS TRIALS TRAININGS REQUESTS CLIENTS",
    ),
    "a number": (
        lambda value: isinstance(value, int | float) and math.isfinite(value),
        "LEARNING_RATE SENSITIVITY CLINIC PENALTY SMOOTHING AGREEMENT",
    ),
    "a folder": (lambda value: isinstance(value, str | os.PathLike), "DATA"),
    "a list": (lambda value: isinstance(value, list | tuple), "WORKERS NETWORKS TARGETS"),
}
"""What the notebooks' parameters are, besides names and folders; None, where a notebook takes it, is its own choice."""


@dataclass(frozen=True)
class Session:
    """How one run of a notebook is set up; made by `begin`.

    Attributes:
        root: the repository.
        data: the folder that holds ``retinopathy/`` and the other sets.
        profile: ``"quick"`` or ``"full"``.
        outputs: ``outputs`` in the repository, or ``MEDIC_OUTPUTS``.
        images: where figures go: ``MEDIC_IMAGES``; else the README's folder ``image`` for the quick profile on the
            committed sample, and ``image`` among the products for anything else.
        synthetic: whether what the notebook reads was drawn rather than photographed.
        seed: what `begin` seeded with.
    """

    root: Path
    data: Path
    profile: str
    outputs: Path
    images: Path
    synthetic: bool
    seed: int

    @property
    def full(self) -> bool:
        """Whether this is the published recipe at its real size."""
        return self.profile == "full"

    @property
    def products(self) -> Path:
        """Where prepared sets, runs and bundles of this data and profile go, apart from those of any other.

        ``outputs/sample_data/quick``, or ``outputs/shared-data/quick`` for ``../shared/data``.
        """
        return products(self.root, self.outputs, self.data, self.profile)

    def shown(self, path: str | os.PathLike) -> str:
        """``path`` as a notebook may print it: relative to the repository, never absolute."""
        return Path(os.path.relpath(path, self.root)).as_posix()


def begin(profile: str, data: str | os.PathLike, *, line: str | None = None, seed: int | None = None) -> Session:
    """Set a notebook up and print what it runs on: profile, data, device, versions.

    Args:
        profile: ``"quick"`` (CPU, small) or ``"full"`` (the published recipe).
        data: the data folder, relative to the repository or absolute.
        line: the one set in it that the notebook reads, such as ``digits``, which then decides whether the data is
            synthetic; None for a notebook that goes by the whole folder.
        seed: for Python's, NumPy's and (where the notebook has imported it) torch's random numbers; 0 by default.

    Raises:
        MedicError: the profile is unknown, the folder is absent, a parameter of the notebook is of another type than it
            has to be, or the notebook lies outside a clone.
    """
    from medic import plots

    given = sys._getframe(1).f_globals
    for wanted, (suits, names) in PARAMETERS.items():
        for name in names.split():
            if given.get(name) is not None and not suits(given[name]):
                raise MedicError(f"{name} is {given[name]!r}; it must be {wanted}")
    if profile not in PROFILES:
        raise MedicError(f"PROFILE is {profile!r}; it must be 'quick' or 'full'")
    root = find_root(Path.cwd())
    folder = Path(os.path.normpath(root / data))
    if not folder.is_dir():
        raise MedicError(
            f"DATA is {os.fspath(data)!r}, and there is no such folder (relative names start at the repository); "
            f"set DATA to a folder that holds retinopathy/, or to {SAMPLE!r}"
        )
    synthetic = is_synthetic(folder) if line is None else (folder / line / SYNTHETIC_MARK).exists()
    outputs = _folder(root, "MEDIC_OUTPUTS", root / "outputs")
    # The README's figures come from the quick profile on the committed sample alone.
    readme = profile == "quick" and (root / SAMPLE).exists() and folder.samefile(root / SAMPLE)
    images = root / "image" if readme else products(root, outputs, folder, profile) / "image"
    images = _folder(root, "MEDIC_IMAGES", images)
    session = Session(root, folder, profile, outputs, images, synthetic, seed or 0)
    random.seed(session.seed)
    # Notebooks and the libraries they call may use NumPy's global state; the library itself passes generators.
    np.random.seed(session.seed)  # noqa: NPY002
    # `begin` comes after a notebook's imports; to import torch here would cost each notebook without it seconds.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(session.seed)
    plots.use_style()
    print(f"profile   {profile}" + ("" if session.full else "  (small and fast, for a CPU)"))
    print(f"data      {session.shown(folder)}")
    print(f"device    {device()}")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    if session.synthetic:
        print(SYNTHETIC_NOTICE)
    elif folder.name == SAMPLE:
        print(SMALL_NOTICE)
    return session


def products(root: Path, outputs: Path, data: Path, profile: str) -> Path:
    """The folder for what is made from ``data`` in ``profile``."""
    parts = [part for part in Path(os.path.relpath(data, root)).parts if part != ".."]
    return outputs / "-".join(parts) / profile


def find_root(start: Path) -> Path:
    """The repository: the nearest folder at or above ``start`` with ``pyproject.toml`` and ``code/medic``."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "code" / "medic").is_dir():
            return folder
    raise MedicError(
        f"{start.name or start} lies outside a clone of MEDIC (no folder above it holds pyproject.toml and "
        "code/medic); open the notebook inside the clone, for example with `make lab`"
    )


def is_synthetic(data: Path) -> bool:
    """Whether ``data`` was generated: a folder named ``sample_data``, or one whose sets carry ``SYNTHETIC.md``."""
    return data.name == SAMPLE or (data / SYNTHETIC_MARK).exists() or any(data.glob(f"*/{SYNTHETIC_MARK}"))


def device() -> str:
    """What is computed on, in words: torch's GPU or CPU threads; the cores where the notebook has not loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return f"CPU, {os.cpu_count()} cores (this notebook does not use torch)"
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Python, medic, torch (where installed) and NumPy by version."""
    found = {"python": platform.python_version()}
    for name in ("medic", "torch", "numpy"):
        if name != "torch" or importlib.util.find_spec("torch"):
            found[name] = importlib.metadata.version(name)
    return found


def record(name: str, value: float | int | bool | str) -> None:
    """Print a scalar and keep it in the notebook's output, where the runner, the tests and `recorded` find it.

    A value that is not finite is kept as null and printed as it is. Recording a name again replaces it.

    Raises:
        MedicError: ``value`` is no scalar.
    """
    from IPython.display import display

    if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise MedicError(
            f"{name!r} is recorded as a {type(value).__name__}; record one number, truth value or text at a time"
        )
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    kept = None if isinstance(value, float) and not math.isfinite(value) else value
    display({SCALAR_MIME: {"name": name, "value": kept}, "text/plain": f"{name}: {shown}"}, raw=True)


def recorded(notebook: str | os.PathLike) -> dict[str, float | int | bool | str | None]:
    """The scalars that an executed notebook recorded, in its order."""
    found = {}
    for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            scalar = output.get("data", {}).get(SCALAR_MIME)
            if scalar is not None:
                found[scalar["name"]] = scalar["value"]
    return found


def show_source(thing: Any) -> Any:
    """The library's own source of a function or class, highlighted; the last line of a cell shows it."""
    from IPython.display import Code

    return Code(inspect.getsource(thing), language="python")


def _folder(root: Path, variable: str, default: Path) -> Path:
    return Path(os.path.normpath(root / os.environ[variable])) if os.environ.get(variable) else default
