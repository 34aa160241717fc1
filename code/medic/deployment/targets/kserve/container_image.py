"""The container image of the service: a Dockerfile, its locked packages (no torch among them) and our source."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import medic
from medic.deployment.targets.kserve.inference_service import GRPC_PORT, HTTP_PORT, USER, server_arguments
from medic.errors import MedicError
from medic.files import write_bytes, write_text

BASE_IMAGE = "python:3.11.14-slim-bookworm"
PLATFORM = {
    "python_version": "3.11",
    "python_full_version": "3.11.14",
    "implementation_name": "cpython",
    "implementation_version": "3.11.14",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_release": "",
    "platform_version": "",
    "platform_machine": "x86_64",
}
"""What the base image is, in the words of dependency markers. kserve asks for a psutil that has no wheel for ARM."""
NOT_FOR_SERVING = frozenset({"matplotlib", "rich", "scikit-learn", "scipy", "seaborn", "tqdm", "typer"})
"""What this library needs for figures, tables and its command line: the server in a container draws and prints none."""
LOCK = "requirements.txt"


def serving_packages() -> list[str]:
    """The distributions that the server needs in its container, by canonical name, sorted.

    They are ``medic[serve]`` with all that it pulls in, as the metadata of what is installed here says, less what
    serves figures and the command line alone.

    Raises:
        MedicError: one of them is not installed here, or torch is among them.
    """
    waiting = [("medic", "serve")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for needed in _needed(name, extra):
            found = canonicalize_name(needed.name)
            if name == "medic" and found in NOT_FOR_SERVING:
                continue
            waiting += [(found, ""), *((found, wanted) for wanted in needed.extras)]
    names = sorted({name for name, _ in seen} - {"medic"})
    if heavy := [name for name in names if re.match(r"(torch|nvidia|triton$|lightning)", name)]:
        raise MedicError(
            f"serving would pull in {', '.join(heavy)}; find what needs it and keep it out of medic[serve]"
        )
    return names


def serving_requirements(lock: str | Path | None = None) -> str:
    """The packages of the container image, each at one version, as a requirements file.

    Args:
        lock: a compiled requirements file to take versions and hashes from; None looks for the repository's. Where
            there is none, such as beside an installed library, the exact versions that are installed here are taken,
            and no hashes.

    Raises:
        MedicError: the lock lacks one of the packages.
    """
    path = Path(lock) if lock is not None else _repository() / LOCK
    names = serving_packages()
    if lock is None and not path.is_file():
        return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)
    try:
        entries = _entries(path.read_text())
    except OSError as error:
        raise MedicError(f"cannot read the lock {path} ({error.strerror}); correct the path") from error
    if missing := [name for name in names if name not in entries]:
        raise MedicError(f"{path} lacks {', '.join(missing)}; run make lock in the repository")
    return "".join(entries[name] for name in names)


def dockerfile(hashes: bool = True) -> str:
    """The Dockerfile: packages in a first stage, then a small image that runs as a user without rights.

    Args:
        hashes: whether the requirements file has them; a package that does not match its hash is refused then.
    """
    options = "--no-cache-dir --no-deps --only-binary=:all:" + (" --require-hashes" if hashes else "")
    health = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{HTTP_PORT}/v2/health/ready', timeout=3)"
    return f"""\
FROM --platform=linux/amd64 {BASE_IMAGE} AS packages
COPY requirements.txt /requirements.txt
RUN python -m venv /opt/packages \\
    && /opt/packages/bin/pip install {options} -r /requirements.txt \\
    && /opt/packages/bin/pip uninstall --yes pip

FROM --platform=linux/amd64 {BASE_IMAGE}
LABEL org.opencontainers.image.title="medic" \\
      org.opencontainers.image.description="Serves a medic bundle. Not a medical device." \\
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /opt/packages /opt/packages
COPY medic /opt/medic/medic
ENV PATH=/opt/packages/bin:$PATH \\
    PYTHONPATH=/opt/medic \\
    PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    HOME=/tmp
USER {USER}:{USER}
WORKDIR /tmp
EXPOSE {HTTP_PORT} {GRPC_PORT}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(["python", "-c", health])}
ENTRYPOINT ["python", "-m", "medic.deployment.service.server"]
CMD {json.dumps(server_arguments())}
"""


def write_image_files(folder: str | Path, lock: str | Path | None = None) -> Path:
    """Write all that ``docker build`` needs: Dockerfile, ``.dockerignore``, ``requirements.txt`` and our source.

    Args:
        folder: where to; files of these names there are replaced.
        lock: as for ``serving_requirements``.
    """
    folder = Path(folder)
    requirements = serving_requirements(lock)
    source = Path(medic.__file__).parent
    shutil.rmtree(folder / "medic", ignore_errors=True)
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            write_bytes(folder / "medic" / path.relative_to(source), path.read_bytes())
    write_text(folder / "requirements.txt", requirements)
    # Nothing but what the image copies is sent to the builder, whatever else comes to lie beside it.
    write_text(folder / ".dockerignore", "*\n!medic\n!requirements.txt\n**/__pycache__\n")
    write_text(folder / "Dockerfile", dockerfile("--hash=" in requirements))
    return folder


def _needed(name: str, extra: str) -> Iterator[Requirement]:
    """What a distribution needs in the base image, without its extras or for one of them."""
    try:
        stated = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MedicError(
            f"{name} is not installed here, so what it needs is unknown; pip install 'medic[serve]'"
        ) from error
    for needed in map(Requirement, stated):
        if needed.marker is None or needed.marker.evaluate({**PLATFORM, "extra": extra}):
            yield needed


def _entries(lock: str) -> dict[str, str]:
    """Each package of a compiled requirements file with its entry, for the base image, without comments and markers."""
    entries = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        lines = [line for line in entry.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if not lines:
            continue
        needed = Requirement(lines[0].rstrip("\\ "))
        if needed.marker is None or needed.marker.evaluate(PLATFORM):
            name = canonicalize_name(needed.name)
            rest = "".join(f" \\\n{line.rstrip(chr(92) + ' ')}" for line in lines[1:])
            entries[name] = f"{name}{needed.specifier}{rest}\n"
    return entries


def _repository() -> Path:
    return Path(medic.__file__).resolve().parents[2]
