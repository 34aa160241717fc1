"""Findings as one HTML file: counted, explained, and each with its picture. It asks no server for anything."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

import cv2
import pandas as pd

from medic.data.decode import decode, shrunk
from medic.data.finding_kinds import KINDS, Kind
from medic.data.findings_style import PAGE, STYLE
from medic.data.parallel import each
from medic.data.stores import Store, is_synthetic
from medic.errors import ImageError
from medic.files import write_text
from medic.task import Task

THUMBNAIL = 240
"""Pixels of a thumbnail's longer side."""
EXAMPLES = 24
"""Findings of a kind that are shown with their pictures."""
LISTED = 500
"""Findings of a kind that are listed below the pictures; the rest is in the table only."""

_TOGETHER = 6  # duplicates of one another that a card shows
_DUPLICATES = ("identical", "near_duplicate")
# What a finding says of duplicates, and what that makes of them together.
_MARKS = {"labels differ": "labels differ", "of another patient": "two patients", "in another split": "two splits"}


def write_report(
    findings: pd.DataFrame, records: pd.DataFrame, store: Store, task: Task, path: str | os.PathLike, title: str = ""
) -> Path:
    """Write findings as an HTML file that holds its pictures, with light and dark colours, readable on a telephone.

    Kinds stand by gravity, each with what it means and what to do. At most 24 of a kind are shown with pictures, the
    next 500 are listed. Duplicates stand side by side with their labels.

    Args:
        findings: as ``medic.data.quality.check`` gives them; those of ``medic.modeling.mislabelled`` may be among them.
        records: the records that were checked.
        store: where the images are.
        task: names the classes.
        path: the file to write; whole or not at all.
        title: what the set is called; the task's name when left.

    Returns:
        The path.

    Raises:
        MedicError: the file cannot be written.
    """
    path = Path(path)
    kinds = [name for name in KINDS if (findings["finding"] == name).any()]
    kinds += [name for name in findings["finding"].unique() if name not in KINDS]
    groups = {name: _groups(findings[findings["finding"] == name], name) for name in kinds}
    shown = [group["image"].head(_TOGETHER) for name in kinds for group in groups[name][:EXAMPLES]]
    names = sorted({image for images in shown for image in images if image in store})
    pictures = dict(zip(names, each(lambda name: _thumbnail(store, name), names, title="thumbnails"), strict=True))
    words = _words(records[records["image"].isin(set(findings["image"]))], task)
    tiles = "".join(
        f'<li class="{"mend" if _kind(name).mend else "look"}"><a href="#{_text(name)}">'
        f"<b>{(findings['finding'] == name).sum():,}</b> {_text(_kind(name).title)}</a></li>"
        for name in kinds
    )
    facts = {
        "Images": f"{len(records):,}",
        # Where each image counts as a patient of its own, nothing is known of patients.
        "Patients": "not given" if records["patient"].is_unique else f"{records['patient'].nunique():,}",
        "Splits": ", ".join(f"{count:,} {name}" for name, count in records["split"].value_counts().items()),
        "Classes": f"{len(task.classes)} of the task {task.name}",
        "Images from": store.location.name or "this folder",
    }
    page = PAGE.format(
        style=STYLE,
        title=_text(title or task.name),
        verdict=_verdict(len(findings), findings, kinds),
        synthetic=_SYNTHETIC if is_synthetic(store) else "",
        facts="".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items()),
        tiles=f"<ul class=tiles>{tiles}</ul>" if tiles else "",
        sections="".join(_section(name, groups[name], pictures, words) for name in kinds),
    )
    write_text(path, page)
    return path


_SYNTHETIC = (
    '<p class="synthetic"><strong>Synthetic set.</strong> The images were drawn by a program, and faults were planted '
    "in it. Nothing here says anything about patients.</p>"
)


def _kind(name: str) -> Kind:
    return KINDS.get(name, Kind(name.replace("_", " ").capitalize(), "", ""))


def _verdict(count: int, findings: pd.DataFrame, kinds: list[str]) -> str:
    if not count:
        return "Nothing was found"
    mend = int(findings["finding"].isin([name for name in kinds if _kind(name).mend]).sum())
    return f"{count:,} finding{'s' * (count != 1)}: {mend:,} to mend, {count - mend:,} to look at"


def _groups(rows: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    """Findings that belong together: duplicates of one another; any other stands for itself."""
    if name not in _DUPLICATES or "other" not in rows:
        return [rows.iloc[[at]] for at in range(len(rows))]
    leader = {image: image for image in rows["image"]}

    def find(image: str) -> str:
        while leader[image] != image:
            leader[image] = leader[leader[image]]
            image = leader[image]
        return image

    for image, other in zip(rows["image"], rows["other"], strict=True):
        if other in leader:
            leader[find(other)] = find(image)
    return [group for _, group in rows.groupby([find(image) for image in rows["image"]], sort=False)]


def _thumbnail(store: Store, name: str) -> str:
    """The image as a data address; empty text where it cannot be read."""
    try:
        pixels = shrunk(decode(store.read(name), at_least=THUMBNAIL), THUMBNAIL)
    except ImageError:
        return ""
    _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _words(records: pd.DataFrame, task: Task) -> dict[str, str]:
    """Of each image its label, split and patient, as a line of HTML."""
    lines = {}
    known = not records["patient"].eq(records["image"]).all()
    for row in records.to_dict("records"):
        if task.kind == "multilabel":
            label = ", ".join(name for name in task.classes if row.get(name) == 1) or "none"
        else:
            label = task.classes[row["label"]]
        patient = f" · patient {_text(row['patient'])}" if known else ""
        lines[row["image"]] = f"<b>{_text(label)}</b> · {_text(row['split'])}{patient}"
    return lines


def _section(name: str, groups: list[pd.DataFrame], pictures: dict[str, str], words: dict[str, str]) -> str:
    kind = _kind(name)
    count = sum(map(len, groups))
    pictured = any(group["image"].isin(set(pictures)).any() for group in groups[:EXAMPLES])
    if pictured:
        cards = "".join(_card(group, pictures, words) for group in groups[:EXAMPLES])
        body = f'<div class="cards{" wide" * (name in _DUPLICATES)}">{cards}</div>'
        body += _rest([row for group in groups[EXAMPLES:] for row in group.itertuples()])
    else:
        rows = [row for group in groups for row in group.itertuples()]
        body = f"<ul class=list>{''.join(map(_line, rows[:EXAMPLES]))}</ul>" + _rest(rows[EXAMPLES:])
    advice = f"<p>{_text(kind.means)} <em>{_text(kind.do)}</em></p>" if kind.means else ""
    return (
        f'<section id="{_text(name)}" class="{"mend" if kind.mend else "look"}"><h2>{_text(kind.title)} '
        f"<small>{count:,}</small></h2>{advice}{body}</section>"
    )


def _card(group: pd.DataFrame, pictures: dict[str, str], words: dict[str, str]) -> str:
    figures = "".join(
        f"<figure>{_picture(pictures.get(image, ''), image)}"
        f"<figcaption><code>{_text(image)}</code><br>{words.get(image, 'no row of the table')}</figcaption></figure>"
        for image in group["image"].head(_TOGETHER)
    )
    more = f"<p>and {len(group) - _TOGETHER} more</p>" if len(group) > _TOGETHER else ""
    if len(group) == 1:
        return f"<article>{figures}<p>{_text(group['detail'].iloc[0])}</p></article>"
    said = " ".join(group["detail"])
    marks = "".join(f"<span>{mark}</span>" for note, mark in _MARKS.items() if note in said)
    return f"<article class=group><div>{figures}</div>{more}<p class=marks>{marks}</p></article>"


def _picture(address: str, image: str) -> str:
    if not address:
        return "<div class=none>no picture</div>"
    return f'<img src="{address}" alt="{_text(image)}" loading="lazy">'


def _rest(rows: list) -> str:
    if not rows:
        return ""
    more = f"<li>and {len(rows) - LISTED:,} more, in the table</li>" if len(rows) > LISTED else ""
    lines = "".join(map(_line, rows[:LISTED]))
    return f"<details><summary>{len(rows):,} more</summary><ul class=list>{lines}{more}</ul></details>"


def _line(row) -> str:
    image = f"<code>{_text(row.image)}</code> " if row.image else ""
    return f"<li>{image}{_text(row.detail)}</li>"


def _text(value: object) -> str:
    return html.escape(str(value))
