"""What each kind of finding means, and what to do about it: for reports, and for whoever reads a table of findings."""

from __future__ import annotations

import base64
import html
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import pandas as pd

from medic.data.check import check
from medic.data.images.decode import decode, shrunk
from medic.data.parallel import each
from medic.data.readers import DATA_SETS, OWN, DataSet, find_data_set, lesions_or_own
from medic.data.stores import Store, is_synthetic, mark_product
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_text
from medic.task import Task


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        title: in words.
        means: what is known, and what it does to a result.
        do: what to do about it.
        mend: whether it is wrong in any case; otherwise somebody has to look.
    """

    title: str
    means: str
    do: str
    mend: bool = False


_AGAIN = "Copy or download the file again. Until then the image is left out of the prepared set."

KINDS = {
    "mislabelled": Kind(
        "Probably labelled wrongly",
        "A model that had not seen the image, nor others of the same patient, is sure of another class than the label "
        "says.",
        "Look at each with somebody who may judge it, and correct the label or leave it. A hard case is no mistake.",
    ),
    "identical": Kind(
        "Identical files",
        "The same bytes under two names. In two splits they test a model on what it has learnt; with different labels "
        "at least one label is wrong.",
        "Keep one. Where labels or patients differ, ask the source which is right, and exclude both until you know.",
        mend=True,
    ),
    "near_duplicate": Kind(
        "The same picture in other bytes",
        "Saved anew, scaled, brightened, mirrored or turned. It does what identical files do, and no checksum "
        "finds it.",
        "Look at both. Keep one, or put both into one split.",
        mend=True,
    ),
    "patient_in_two_splits": Kind(
        "Patients in two splits",
        "A model is tested on people whom it has seen in training, and its figures flatter.",
        "Split anew by patient (medic.data.split.split_by_patient).",
        mend=True,
    ),
    "absent": Kind("Listed, but absent", "The table names a file that is not there.", _AGAIN, mend=True),
    "empty": Kind("Empty files", "The file has no byte.", _AGAIN, mend=True),
    "truncated": Kind("Cut off files", "The file ends before its image does.", _AGAIN, mend=True),
    "unreadable": Kind("Damaged files", "The file cannot be decoded.", _AGAIN, mend=True),
    "unsupported": Kind(
        "Files in formats that are not read",
        "No image, or one in a format other than JPEG, PNG, TIFF, BMP and DICOM, such as an animated GIF.",
        "Save the picture that is meant as PNG or JPEG, under a name of its own.",
        mend=True,
    ),
    "too_large": Kind("Too large", "The file claims more pixels than are decoded.", "Scale it down first.", mend=True),
    "noted": Kind(
        "Rows that were not taken as they stand",
        "The reader had to treat a value of the table as unknown.",
        "Correct the table, if you know better.",
    ),
    "nearly_black": Kind(
        "Nearly black", "Nothing can be seen that could be judged.", "Exclude it, or find the exposure that was meant."
    ),
    "too_dark": Kind(
        "Dark",
        "Less than two fifths as bright as is usual in the set.",
        "Look whether it can be judged; exclude it if not.",
    ),
    "too_bright": Kind(
        "Overexposed", "More than half of its pixels are white.", "Look whether it can be judged; exclude it if not."
    ),
    "blurred": Kind(
        "Blurred",
        "It has far less fine detail than the rest of the set has. Small lesions cannot be seen in it.",
        "Look whether it can be judged. An opaque eye or smooth skin can look so, too.",
    ),
    "odd_size": Kind(
        "Odd size or shape",
        "Hardly any other image has its size or its shape. A cut-out, a thumbnail or a picture from elsewhere "
        "looks so.",
        "Look whether it belongs to the set.",
    ),
    "odd_channels": Kind(
        "Odd channels",
        "It is stored otherwise than the rest: grey among colours, with transparency, with a palette, for print. All "
        "are read; but where a class has more of them, a model may learn the file instead of the disease.",
        "Look where it comes from.",
    ),
    "rare_class": Kind(
        "Classes with few images or patients",
        "Fewer than 10 images or 5 patients: too few to learn it, and far too few to judge it.",
        "Collect more, join it with another class, or leave it out of the figures.",
    ),
    "single_patient_class": Kind(
        "Classes of one patient",
        "All images of the class show one patient: a model learns the patient.",
        "Collect more, or leave the class out.",
    ),
    "split_imbalance": Kind(
        "Splits without a class",
        "A class occurs in the set, but not in one of its splits: it is not learnt there, or not judged.",
        "Split anew, stratified by class (medic.data.split.split_by_patient).",
    ),
    "unlisted": Kind(
        "Images that no row names",
        "They lie among the listed images and are used for nothing.",
        "Add a row with their label, or move them elsewhere.",
    ),
    "not_an_image": Kind(
        "Other files among the images", "They are passed over.", "Move them elsewhere, so that nothing is overlooked."
    ),
}
"""By the name in a table of findings, the gravest first."""


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>MEDIC check: {title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="series">MEDIC <span>check of {title}</span></p>
<h1>{verdict}</h1>
{synthetic}
<dl>{facts}</dl>
{tiles}
</header>
{sections}
<footer>The pictures in this file are those of the set: keep it as you keep them. MEDIC is for teaching and research. It
is not a medical device.</footer>
</main>
</body>
</html>
"""

STYLE = """
:root { --paper: #f6f5f1; --card: #ffffff; --ink: #1d2329; --soft: #5d6670; --line: #dfddd5; --accent: #0b5f8a;
  --mend: #b3261e; --look: #0b5f8a; --frame: #efede6; --loud: #fff1cf; --loud-line: #d99a00; --loud-ink: #4d3800; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --card: #1c2228; --ink: #e6e8ea; --soft: #9ba5ae; --line: #303840; --accent: #77bfe8;
    --mend: #ff8a80; --look: #77bfe8; --frame: #12161a; --loud: #3a2e0c; --loud-line: #d99a00; --loud-ink: #ffe2a0; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
.series { margin: 0; font-weight: 700; letter-spacing: .08em; }
.series span { margin-left: .6rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
h1 { margin: .4rem 0 1.1rem; font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; letter-spacing: -.01em; }
.synthetic { margin: 0 0 1.25rem; padding: .8rem 1rem; border-left: 5px solid var(--loud-line); border-radius: 4px;
  background: var(--loud); color: var(--loud-ink); }
.synthetic strong { text-transform: uppercase; letter-spacing: .04em; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem 2rem; margin: 0; }
dt { font-size: .75rem; text-transform: uppercase; letter-spacing: .07em; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .6rem; margin: 1.6rem 0 0;
  padding: 0; list-style: none; }
.tiles a { display: block; height: 100%; padding: .6rem .8rem; border: 1px solid var(--line); border-left-width: 5px;
  border-radius: 6px; background: var(--card); color: var(--ink); font-size: .92rem; line-height: 1.3;
  text-decoration: none; }
.tiles .mend a { border-left-color: var(--mend); } .tiles .look a { border-left-color: var(--look); }
.tiles a:hover { border-color: var(--accent); }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { margin-top: 2.6rem; }
h2 { margin: 0; padding-top: .9rem; border-top: 3px solid var(--look); font-size: 1.25rem; line-height: 1.3; }
section.mend h2 { border-top-color: var(--mend); }
h2 small { margin-left: .3rem; font-weight: 400; font-size: 1rem; color: var(--soft); }
section > p { margin: .3rem 0 1rem; max-width: 48rem; color: var(--soft); }
section > p em { font-style: normal; color: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .9rem; }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
article { padding: .7rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
article > p { margin: .5rem 0 0; font-size: .88rem; color: var(--soft); overflow-wrap: anywhere; }
.group > div { display: grid; grid-template-columns: 1fr 1fr; gap: .7rem; }
figure { margin: 0; min-width: 0; }
img, .none { display: block; width: 100%; height: 11rem; border-radius: 4px; background: var(--frame); }
img { object-fit: contain; }
.none { display: grid; place-items: center; color: var(--soft); font-size: .88rem; }
figcaption { margin-top: .4rem; font-size: .88rem; line-height: 1.45; overflow-wrap: anywhere; }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.marks { display: flex; flex-wrap: wrap; gap: .35rem; }
.marks span { padding: .05rem .55rem; border: 1px solid var(--mend); border-radius: 1rem; font-size: .82rem;
  color: var(--mend); }
.list { margin: 0; padding-left: 1.1rem; font-size: .92rem; overflow-wrap: anywhere; }
.list li { margin: .2rem 0; }
details { margin-top: .9rem; }
summary { cursor: pointer; color: var(--accent); }
details .list { margin-top: .5rem; columns: 22rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem;
  color: var(--soft); }
@media (max-width: 30rem) {
  main { padding: 1.4rem .9rem 2rem; }
  .series span { display: block; margin: 0; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .cards { grid-template-columns: 1fr; } }
@media print { article { break-inside: avoid; } }
"""


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
        findings: as ``medic.data.check.check`` gives them; those of ``medic.modeling.label_quality`` may be among them.
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


@dataclass(frozen=True, eq=False)
class Checked:
    """What was found in one set.

    Attributes:
        name: of the line.
        images: rows of its table.
        findings: as ``medic.data.check.check`` gives them.
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


def sets_in(data: str | os.PathLike, name: str | None = None) -> dict[str, tuple[DataSet, Path]]:
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
        line = find_data_set(name)
        return {name: (line, line.find(data))}
    there = {line.name: (line, path) for line in DATA_SETS.values() if (path := line.find(data)) != data}
    if there:
        return there
    called = data.resolve().name.removesuffix(".zip")
    line = DATA_SETS.get(called) or lesions_or_own(data)[0]
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


def check_set(
    line: DataSet, source: Path, to: str | os.PathLike, *, scheduler: str | None = None, **how: object
) -> Checked:
    """Read one set, check it, and write ``findings.csv`` and ``findings.html``.

    Args:
        line: whose reader reads it.
        source: where it lies.
        to: the folder to write to.
        scheduler: as for ``check``.
        how: for the reader of one's own images: ``level`` or ``columns``, where they can be mistaken.

    Raises:
        MedicError: the set cannot be read, or nothing can be written.
    """
    records, store = line.read(source, **how)
    task = line.task(records)
    findings = check(records, store, task, scheduler)
    mark_product(to)
    table, page = Path(to) / "findings.csv", Path(to) / "findings.html"
    with replacing(table) as temporary:
        findings.to_csv(temporary, index=False)
    write_report(findings, records, store, task, page, line.name if line is not OWN else source.resolve().name)
    return Checked(line.name, len(records), findings, table, page)
