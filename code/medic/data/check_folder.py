"""Check every set in a data folder, and write what was found: a table and a page with pictures for each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medic.data.finding_kinds import KINDS
from medic.data.findings_report import write_report
from medic.data.lines import LINES, OWN, Line, find_line, lesions_or_own
from medic.data.quality import check
from medic.errors import MedicError
from medic.files import replacing


@dataclass(frozen=True, eq=False)
class Checked:
    """What was found in one set.

    Attributes:
        name: of the line.
        images: rows of its table.
        findings: as ``medic.data.quality.check`` gives them.
        table: the findings as a CSV file.
        page: the findings as an HTML file.
    """

    name: str
    images: int
    findings: pd.DataFrame
    table: Path
    page: Path

    def counts(self) -> pd.DataFrame:
        """One row a kind, the gravest first: ``finding``, ``found`` (how many), and ``first``, an example in words."""
        kinds = [name for name in KINDS if (self.findings["finding"] == name).any()]
        rows = []
        for name in kinds:
            theirs = self.findings[self.findings["finding"] == name]
            rows.append((name, len(theirs), ": ".join(filter(None, theirs[["image", "detail"]].iloc[0]))))
        return pd.DataFrame(rows, columns=["finding", "found", "first"])

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        counted = {row.finding: {"found": row.found, "first": row.first} for row in self.counts().itertuples()}
        return {
            "images": self.images,
            "findings": counted,
            "table": self.table.as_posix(),
            "page": self.page.as_posix(),
        }

    def __str__(self) -> str:
        count = len(self.findings)
        lines = [f"{self.name}: {self.images:,} images, {f'{count:,} findings' if count else 'nothing found'}"]
        lines += [f"  {row.finding:22}{row.found:>7,}  {row.first}" for row in self.counts().itertuples()]
        return "\n".join([*lines, f"  see {self.page}"])


def sets_in(data: str | os.PathLike, name: str | None = None) -> dict[str, tuple[Line, Path]]:
    """The sets that a data folder holds, by their lines' names.

    Args:
        data: a folder with a folder or zip file for each line, named as it; one such folder itself; or a folder of
            one's own images.
        name: of the one line that is meant, ``own`` among them; None takes all that are there.

    Returns:
        By name the line, and where its set lies. Where the folder holds no line's set, is not named as one and has no
        table of the ISIC Archive, it is taken for one's own images.

    Raises:
        MedicError: there is no such folder or zip file, or no such line.
    """
    data = Path(data)
    if not data.exists():
        raise MedicError(f"there is no folder or zip file {data}; correct the path")
    if name is not None:
        line = find_line(name)
        return {name: (line, line.find(data))}
    there = {line.name: (line, path) for line in LINES.values() if (path := line.find(data)) != data}
    if there:
        return there
    called = data.resolve().name.removesuffix(".zip")
    line = LINES.get(called) or lesions_or_own(data)[0]
    return {line.name: (line, data)}


def unknown_in(data: str | os.PathLike) -> list[str]:
    """Folders and zip files beside those of the lines, which are called as none of them; sorted."""
    data = Path(data)
    if OWN.name in (sets := sets_in(data)) or any(source == data for _, source in sets.values()):
        return []
    known = {source.name for _, source in sets.values()} | {f"{name}.zip" for name in sets} | set(sets)
    return sorted(
        path.name
        for path in data.iterdir()
        if not path.name.startswith(".") and path.name not in known and (path.is_dir() or path.suffix == ".zip")
    )


def check_set(line: Line, source: Path, to: str | os.PathLike, level: int | None = None) -> Checked:
    """Read one set, check it, and write ``findings.csv`` and ``findings.html``.

    Args:
        line: whose reader reads it.
        source: where it lies.
        to: the folder to write to.
        level: of one's own images, which level of folders is the classes', where it can be mistaken.

    Raises:
        MedicError: the set cannot be read, or nothing can be written.
    """
    records, store = line.read(source, **({} if level is None else {"level": level}))
    task = line.task(records)
    findings = check(records, store, task)
    table, page = Path(to) / "findings.csv", Path(to) / "findings.html"
    with replacing(table) as temporary:
        findings.to_csv(temporary, index=False)
    write_report(findings, records, store, task, page, line.name if line is not OWN else source.resolve().name)
    return Checked(line.name, len(records), findings, table, page)
