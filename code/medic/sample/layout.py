"""Folders that hold a generated sample: which may be written to, and what an earlier run left there."""

from collections.abc import Callable
from pathlib import Path

from medic.errors import MedicError


def earlier_files(folder: Path, mark: str, title: str, of_a_sample: Callable[[str], bool]) -> set[Path]:
    """The files of an earlier sample in a folder, which a new one may replace.

    Args:
        folder: where a sample is to be written.
        mark: the file that describes a sample, such as ``SYNTHETIC.md``.
        title: how that file begins; without it, the files there are somebody else's.
        of_a_sample: whether a sample has a file of this name, a path below the folder with forward slashes.

    Returns:
        Empty where nothing is there.

    Raises:
        MedicError: the folder is a file, or holds anything else.
    """
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise MedicError(f"cannot write a sample to {folder}: it is a file; name a folder")
    found = {path for path in folder.rglob("*") if not path.is_dir()}
    about = folder / mark
    ours = not found or (about in found and about.read_bytes().startswith(title.encode()))
    for path in sorted(found):
        inside = path.relative_to(folder).as_posix()
        unfinished = path.name.startswith(".") and path.name.endswith(".part")  # of a run that was killed
        if not ours or not (inside == mark or of_a_sample(inside) or unfinished):
            raise MedicError(
                f"cannot write a sample to {folder}: it holds {inside}, which no earlier sample made; "
                "name an empty or a new folder"
            )
    return found
