"""The page of a run, ``outputs/index.html``, and the headline of each notebook with what changed since the last run."""

import base64
import datetime
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from medic.files import write_bytes, write_text
from medic.notebooks.session import is_synthetic, recorded, versions

if TYPE_CHECKING:
    from medic.notebooks.run import Outcome

HEADLINES = tomllib.loads((Path(__file__).parent / "headlines.toml").read_text(encoding="utf-8"))
"""What each notebook's headline is called, by name such as ``02_modeling/03_grade_retinopathy.ipynb``."""


@dataclass(frozen=True)
class Headline:
    """The main figure of a notebook: what it is, its 95 % interval, and the baseline that it is to lie beyond.

    Interval and baseline are None where the notebook records none.
    """

    what: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None
    smaller: bool = False

    @property
    def holds(self) -> bool:
        """Whether the interval (or, without one, the value) lies on the better side of the baseline."""
        end = self.high if self.smaller else self.low
        end = self.value if end is None else end
        return self.baseline is None or (end < self.baseline if self.smaller else end > self.baseline)


def headline(notebook: str, scalars: Mapping[str, Any]) -> Headline | None:
    """Return a notebook's headline from the scalars that it recorded; None where it recorded none."""
    names = {"value": "headline", "low": "headline_low", "high": "headline_high", "baseline": "headline_baseline"}
    row = {"what": "headline"} | names | HEADLINES.get(notebook, {})
    found = {key: scalars.get(row[key]) if isinstance(row[key], str) else row[key] for key in names}
    return None if found["value"] is None else Headline(row["what"], **found, smaller=row.get("smaller", False))


def convert(copy: Path, source_folder: Path) -> None:
    """Write beside an executed notebook its HTML and, in a folder ``<name>_files``, its pictures."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(copy, as_version=4)
    pictures = copy.with_name(f"{copy.stem}_files")
    shutil.rmtree(pictures, ignore_errors=True)
    shown = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    found = [(kind, data[f"image/{kind}"]) for data in shown for kind in ("png", "jpeg") if f"image/{kind}" in data]
    for number, (kind, data) in enumerate(found, start=1):
        write_bytes(pictures / f"figure_{number:02d}.{kind}", base64.b64decode(data))
    # Without these addresses the page works offline; formulas then stay in TeX notation.
    offline = dict.fromkeys(("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True, **offline)
    resources = {"metadata": {"name": copy.stem, "path": str(source_folder)}}
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    # Scripts of the template only load what was left out above. Lines get a length that can be read.
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL | re.IGNORECASE)
    style = "<style>main { max-width: 62rem; margin: 0 auto; padding: 1rem } img { max-width: 100% }</style>"
    write_text(copy.with_suffix(".html"), body.replace("</head>", f"{style}\n</head>", 1))


def render(
    root: Path,
    data: Path,
    profile: str,
    outputs: Path,
    outcomes: "Iterable[Outcome]",
    before: Mapping[str, float],
    since: str,
) -> str:
    """Return the whole page for the outcomes so far.

    Args:
        root: the repository.
        data: the data folder of the run.
        profile: ``"quick"`` or ``"full"``.
        outputs: where ``notebooks/`` with the executed copies lies.
        outcomes: of all notebooks, in order.
        before: the headlines that this run is compared with, by notebook.
        since: when those are from, such as ``last run``.
    """
    rows = []
    for outcome in outcomes:
        copy = outputs / "notebooks" / outcome.notebook
        # A copy from before a change belongs to another run; only what this state vouches for is shown.
        scalars = recorded(copy) if copy.exists() and outcome.status in ("done", "failed") else None
        title, purpose = _opening(root / "code" / outcome.notebook)
        figures = sorted(copy.with_name(f"{copy.stem}_files").glob("figure_*")) if scalars is not None else []
        row = {"outcome": outcome, "title": title, "purpose": purpose, "scalars": scalars}
        row["stage"] = outcome.notebook.partition("/")[0]
        finished = datetime.datetime.fromtimestamp(outcome.finished).astimezone()
        row["kept_from"] = finished.strftime("%d %b, %H:%M") if outcome.kept else None
        row["headline"] = headline(outcome.notebook, scalars or {}) if outcome.status == "done" else None
        rows.append(row | {"figures": [path.relative_to(outputs).as_posix() for path in figures]})
    facts = {
        "Data": Path(os.path.relpath(data, root)).as_posix() + (" (synthetic sample)" if is_synthetic(data) else ""),
        "Profile": profile,
        "Machine": _machine(),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "Time": f"{_duration(sum(row['outcome'].seconds for row in rows))} in notebooks",
        "Written": datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
    }
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.PackageLoader("medic.notebooks", ".")
    )
    environment.filters |= {"inline": _inline, "duration": _duration, "shown": _shown, "short": _short}
    given = {"rows": rows, "facts": facts, "before": before, "since": since, "synthetic": is_synthetic(data)}
    return environment.get_template("page.html.j2").render(given)


def _machine() -> str:
    """Cores and GPU in words. The GPU is asked of its driver: importing torch for it would take seconds."""
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False) if shutil.which(asked[0]) else None
    names = found.stdout.strip().splitlines() if found and found.returncode == 0 else []
    return ", ".join([f"{os.cpu_count()} CPU cores", *(names or ["no GPU"])])


def _opening(path: Path) -> tuple[str, str]:
    """Title and sentence of purpose, from the first cell."""
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    title, _, rest = "".join(first["source"]).strip().partition("\n")
    return title.lstrip("# "), " ".join(rest.strip().split("\n\n")[0].split())


def _inline(markdown: str) -> Markup:
    """The few marks that a title or a sentence carries, as HTML."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", str(escape(markdown)))
    for mark, tag in ((r"`([^`]+)`", "code"), (r"\*\*([^*]+)\*\*", "strong"), (r"(?<!\w)[*_]([^*_]+)[*_](?!\w)", "em")):
        text = re.sub(mark, rf"<{tag}>\1</{tag}>", text)
    return Markup(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _shown(value: Any) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
