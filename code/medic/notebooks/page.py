"""The page of a run, ``outputs/index.html``: one file with its own style, which asks the network for nothing."""

import base64
import datetime
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from medic.files import write_bytes, write_text
from medic.notebooks.session import is_synthetic, recorded, versions

if TYPE_CHECKING:
    from medic.notebooks.run import Outcome

STATUS = {
    "done": ("done", "✓"),
    "failed": ("failed", "✕"),
    "running": ("running", "▸"),
    "waiting": ("not run yet", "·"),
    "stopped": ("interrupted", "‖"),
}


@dataclass(frozen=True)
class Facts:
    """What a run was made with, in words for the head of the page."""

    root: Path
    data: str
    synthetic: bool
    profile: str
    machine: str
    versions: str


def facts(root: Path, data: Path, profile: str) -> Facts:
    """Look up what the head of the page says."""
    shown = Path(os.path.relpath(data, root)).as_posix()
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    return Facts(root, shown, is_synthetic(data), profile, machine(), named)


def machine() -> str:
    """Cores, memory and GPU in words. The GPU is asked of its driver: importing torch for it would take seconds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [f"{cores} CPU core{'s' if cores != 1 else ''}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        words.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB memory")
    names = []
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        names = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
    return ", ".join([*words, *(names or ["no GPU"])])


def convert(copy: Path, source_folder: Path) -> None:
    """Write beside an executed notebook its HTML and, in a folder ``<name>_files``, its pictures."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(copy, as_version=4)
    pictures = picture_folder(copy)
    if pictures.exists():
        shutil.rmtree(pictures)
    for number, data in enumerate(_pictures(notebook), start=1):
        write_bytes(pictures / f"figure_{number:02d}.png", data)

    # Without these addresses the page works offline; formulas then stay in TeX notation.
    offline = dict.fromkeys(("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True, **offline)
    resources = {"metadata": {"name": copy.stem, "path": str(source_folder)}}
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    # Scripts of the template only load what was left out above.
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL | re.IGNORECASE)
    write_text(copy.with_suffix(".html"), body.replace("</head>", f"<style>{COPY_STYLE}</style>\n</head>", 1))


def picture_folder(copy: Path) -> Path:
    """Where `convert` puts the pictures of an executed notebook."""
    return copy.with_name(f"{copy.stem}_files")


def render(outcomes: Iterable["Outcome"], facts: Facts, outputs: Path) -> str:
    """The whole page for the outcomes so far."""
    outcomes = tuple(outcomes)
    stages: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        stages.setdefault(outcome.notebook.partition("/")[0], []).append(outcome)
    strip = "".join(
        f'<a class="{outcome.status}" href="#{_anchor(outcome)}" title="{_text(outcome.notebook)}: '
        f'{STATUS[outcome.status][0]}"><span>{_text(_number(outcome))}</span></a>'
        for outcome in outcomes
    )
    sections = ""
    for stage, members in stages.items():
        cards = "".join(_card(one, facts, outputs) for one in members)
        sections += f"<section><h2>{_text(_stage_title(stage))}</h2>{cards}</section>"
    synthetic = (
        '<p class="synthetic"><strong>Synthetic sample.</strong> The images of this run were drawn by a program. '
        "No figure on this page says anything about patients or about clinical performance.</p>"
        if facts.synthetic
        else ""
    )
    data = f"{facts.data} (synthetic sample)" if facts.synthetic else facts.data
    rows = {
        "Data": data,
        "Profile": facts.profile,
        "Machine": facts.machine,
        "Versions": facts.versions,
        "Time": f"{_duration(sum(one.seconds for one in outcomes))} in notebooks",
        "Written": datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
    }
    described = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in rows.items())
    return PAGE.format(
        style=STYLE,
        verdict=_text(_verdict(outcomes)),
        mood="failed" if any(one.status == "failed" for one in outcomes) else "fine",
        strip=strip,
        synthetic=synthetic,
        facts=described,
        sections=sections,
    )


def _card(outcome: "Outcome", facts: Facts, outputs: Path) -> str:
    copy = outputs / "notebooks" / outcome.notebook
    title, purpose = _opening(facts.root / "code" / outcome.notebook)
    word, mark = STATUS[outcome.status]
    when = f"<span class=time>{_duration(outcome.seconds)}</span>" if outcome.seconds else ""
    if outcome.kept and outcome.finished:
        day = datetime.datetime.fromtimestamp(outcome.finished).astimezone().strftime("%d %b, %H:%M")
        when += f"<span class=time>kept from {day}</span>"
    parts = [
        f'<header><h3>{_inline(title)}</h3><p class="state"><b class="{outcome.status}">'
        f"<i aria-hidden=true>{mark}</i> {word}</b>{when}</p></header>",
        f"<p class=purpose>{_inline(purpose)}</p>" if purpose else "",
    ]
    # A copy from before a change belongs to another run; only what this state vouches for is shown.
    shown = copy.exists() and outcome.status in ("done", "failed")
    if outcome.failure:
        parts.append(_failure(outcome))
    if shown:
        parts.append(_scalars(recorded(copy)))
        parts.append(_gallery(copy, title, outputs))
    links = [f'<span class="file">{_text(outcome.notebook)}</span>']
    if shown:
        links = [
            f'<a href="{_address(copy.with_suffix(".html"), outputs)}">read the executed copy</a>',
            f'<a href="{_address(copy, outputs)}">notebook file</a>',
            *links,
        ]
    parts.append(f"<footer>{''.join(links)}</footer>")
    return f'<article id="{_anchor(outcome)}" class="{outcome.status}">{"".join(parts)}</article>'


def _failure(outcome: "Outcome") -> str:
    failure = outcome.failure
    where = f"Cell {failure.cell} failed" if failure.cell else "The notebook stopped outside its cells"
    source = f"<pre class=source>{_text(failure.source)}</pre>" if failure.source else ""
    return f"<div class=failure><h4>{where}</h4>{source}<pre class=error>{_text(failure.error)}</pre></div>"


def _scalars(scalars: dict[str, Any]) -> str:
    if not scalars:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{_text(name.replace('_', ' '))}</th><td>{_text(_value(value))}</td></tr>"
        for name, value in scalars.items()
    )
    return f"<table class=scalars><tbody>{rows}</tbody></table>"


def _gallery(copy: Path, title: str, outputs: Path) -> str:
    figures = sorted(picture_folder(copy).glob("*.png"))
    items = "".join(
        f'<a href="{_address(path, outputs)}"><img src="{_address(path, outputs)}" '
        f'alt="Figure {number} of {_text(title)}"></a>'
        for number, path in enumerate(figures, start=1)
    )
    return f"<div class=gallery>{items}</div>" if items else ""


def _pictures(notebook: Any) -> Iterable[bytes]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield base64.b64decode(output.data["image/png"])


def _opening(path: Path) -> tuple[str, str]:
    """Title and sentence of purpose, from the first cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = cells[0] if cells and cells[0]["cell_type"] == "markdown" else {"source": ""}
    lines = "".join(first["source"]).strip().splitlines()
    title = lines[0].lstrip("# ").strip() if lines and lines[0].startswith("#") else path.stem.replace("_", " ")
    rest = "\n".join(lines[1:]).strip().split("\n\n")[0]
    return title, " ".join(rest.split())


def _inline(markdown: str) -> str:
    """The few marks that a title or a sentence carries."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", _text(markdown))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(?<![\w*])[*_]([^*_]+)[*_](?![\w*])", r"<em>\1</em>", text)


def _verdict(outcomes: tuple["Outcome", ...]) -> str:
    count = {status: sum(one.status == status for one in outcomes) for status in STATUS}
    parts = [f"{count['done']} of {len(outcomes)} notebooks done"]
    parts += [f"{count[status]} {STATUS[status][0]}" for status in ("failed", "running", "stopped") if count[status]]
    return ", ".join(parts)


def _stage_title(folder: str) -> str:
    return folder.lstrip("0123456789_").replace("_", " ").capitalize()


def _number(outcome: "Outcome") -> str:
    folder, _, name = outcome.notebook.partition("/")
    return f"{int(folder[:2])}.{int(re.match(r'[0-9]+', name).group())}"


def _anchor(outcome: "Outcome") -> str:
    return re.sub(r"[^a-z0-9]+", "-", outcome.notebook.removesuffix(".ipynb").lower())


def _address(path: Path, outputs: Path) -> str:
    return quote(path.relative_to(outputs).as_posix())


def _value(value: Any) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(value: str) -> str:
    return html.escape(str(value))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>MEDIC: {verdict}</title>
<style>{style}</style>
</head>
<body>
<main>
<header class="head">
<p class="series">MEDIC <span>from pixels to endpoint</span></p>
<h1 class="{mood}">{verdict}</h1>
<nav class="strip" aria-label="Notebooks">{strip}</nav>
{synthetic}
<dl>{facts}</dl>
</header>
{sections}
<footer class="foot">MEDIC is for teaching and research. It is not a medical device: nothing here may be used to
diagnose or to treat.</footer>
</main>
</body>
</html>
"""

# Lines of a readable length in the executed copies, which otherwise run over the whole window.
COPY_STYLE = "main { max-width: 62rem; margin: 0 auto; padding: 1rem } img { max-width: 100% }"

STYLE = """
:root { --paper: #f6f5f1; --card: #ffffff; --ink: #1d2329; --soft: #5d6670; --line: #dfddd5; --accent: #0b5f8a;
  --done: #1b7a4b; --failed: #b3261e; --running: #0b5f8a; --waiting: #a3a8ad; --code: #f3f2ed;
  --loud: #fff1cf; --loud-line: #d99a00; --loud-ink: #4d3800; --wrong: #fdf0ee; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --card: #1c2228; --ink: #e6e8ea; --soft: #9ba5ae; --line: #303840; --accent: #77bfe8;
    --done: #5cc48d; --failed: #ff8a80; --running: #77bfe8; --waiting: #5b646d; --code: #12161a;
    --loud: #3a2e0c; --loud-line: #d99a00; --loud-ink: #ffe2a0; --wrong: #2b1c1c; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
a { color: var(--accent); }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.series { margin: 0; font-weight: 700; letter-spacing: .08em; }
.series span { margin-left: .6rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
h1 { margin: .4rem 0 1.1rem; font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; letter-spacing: -.01em; }
h1.failed { color: var(--failed); }
.strip { display: flex; flex-wrap: wrap; gap: 4px; }
.strip a { flex: 1 1 2.6rem; min-width: 2.6rem; padding: .3rem 0; border-radius: 4px; text-align: center;
  font-size: .8rem; font-variant-numeric: tabular-nums; text-decoration: none; color: var(--card);
  background: var(--waiting); }
.strip .done { background: var(--done); } .strip .failed { background: var(--failed); }
.strip .running { background: var(--running); }
.synthetic { margin: 1.25rem 0 0; padding: .8rem 1rem; border-left: 5px solid var(--loud-line); border-radius: 4px;
  background: var(--loud); color: var(--loud-ink); }
.synthetic strong { text-transform: uppercase; letter-spacing: .04em; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .9rem 2rem; margin: 1.5rem 0 0; }
dt { font-size: .75rem; text-transform: uppercase; letter-spacing: .07em; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 1rem; padding-bottom: .4rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
article { margin: 0 0 1.25rem; padding: 1.25rem 1.4rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
article.failed { border-color: var(--failed); }
article.waiting, article.stopped { background: none; }
article > header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline;
  gap: .2rem 1.5rem; }
h3 { margin: 0; font-size: 1.2rem; line-height: 1.3; }
.state { margin: 0; font-size: .9rem; color: var(--soft); }
.state b { font-weight: 600; } .state i { font-style: normal; }
.state .done { color: var(--done); } .state .failed { color: var(--failed); } .state .running { color: var(--running); }
.time { margin-left: .7rem; font-variant-numeric: tabular-nums; }
.purpose { margin: .35rem 0 0; max-width: 46rem; color: var(--soft); }
.scalars { margin: 1rem 0 0; border-collapse: collapse; font-size: .92rem; }
.scalars th, .scalars td { padding: .28rem 0; border-bottom: 1px solid var(--line); text-align: left;
  font-weight: 400; vertical-align: top; overflow-wrap: anywhere; }
.scalars td { padding-left: 2rem; text-align: right; font-weight: 600; font-variant-numeric: tabular-nums; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .75rem;
  margin-top: 1.1rem; }
.gallery a { display: flex; align-items: center; justify-content: center; height: 11.5rem; padding: .5rem;
  border: 1px solid var(--line); border-radius: 6px; background: #ffffff; }
.gallery a:hover { border-color: var(--accent); }
.gallery img { max-width: 100%; max-height: 100%; }
.failure { margin-top: 1rem; padding: .9rem 1rem; border-radius: 6px; background: var(--wrong); }
.failure h4 { margin: 0 0 .5rem; font-size: .95rem; color: var(--failed); }
pre { margin: 0 0 .6rem; padding: .7rem .8rem; max-height: 24rem; overflow: auto; border-radius: 4px;
  background: var(--code); font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre:last-child { margin-bottom: 0; }
pre.error { color: var(--failed); white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
article > footer { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin-top: 1rem; font-size: .9rem; }
.file { color: var(--soft); font: .82rem/1.8 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.foot { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem; color: var(--soft); }
@media (max-width: 30rem) {
  main { padding: 1.4rem .9rem 2rem; }
  article { padding: 1rem; }
  .series span { display: block; margin: 0; }
  .scalars { width: 100%; }
  .gallery { grid-template-columns: 1fr 1fr; } .gallery a { height: 7.5rem; } }
@media print { .strip { display: none; } article { break-inside: avoid; } }
"""
