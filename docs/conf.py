"""The documentation site: Markdown and the notebooks as they are committed, and a page of the API for each room.

Sphinx reads one folder. `make docs` lays this one, the notebooks and their figures side by side into ``_build/source``,
as they lie in the repository, so that their links hold, and builds from there.
"""

from pathlib import Path

import medic

project = "MEDIC"
author = "MEDIC contributors"
copyright = "2026, MEDIC contributors"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
exclude_patterns = ["docs/_build"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# The notebooks are committed executed, and the tests run each of them twice; a build shows what was committed.
nb_execution_mode = "off"
nb_merge_streams = True
# Recorded scalars carry a type of their own for programs, with a line of text for people, which is what is shown. Short
# names of attributes, which docstrings mention, may belong to several classes.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature holds them
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "MEDIC"
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_fullscreen_button": False,
    "use_download_button": False,
}
html_static_path = ["docs/_static"]
html_css_files = ["site.css"]

ROOMS = {
    "data": "Records, stores, readers, checks, splits and prepared sets",
    "sample": "The drawn sets",
    "modeling": "Networks, training, evaluation, comparison and trust",
    "deployment": "Export, compression, bundles, the service, drift and targets",
    "notebooks": "What notebooks call, and the runner behind `medic run`",
    "plots": "Figures",
    "widgets": "Widgets for notebooks",
}


def write_api() -> None:
    """Write a page a room that lists each of its public modules."""
    folder, package = Path(__file__).parent / "docs" / "api", Path(medic.__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    first = [f"medic.{name}" for name in ("task", "predict", "errors", "files")]
    pages = {"words": ("medic", "What all rooms share", first)}
    for room, about in ROOMS.items():
        found = sorted(path.relative_to(package.parent).with_suffix("") for path in (package / room).rglob("*.py"))
        names = [".".join(path.parts).removesuffix(".__init__") for path in found]
        # score.py is a program, which starts in a bundle alone.
        shown = [name for name in names if "._" not in name and not name.endswith(".score")]
        pages[room] = (f"medic.{room}", about, shown)
    for page, (title, about, names) in pages.items():
        parts = [f"# {title}\n\n{about}.\n"]
        for name in names:
            parts.append(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n")
        (folder / f"{page}.md").write_text("\n".join(parts), encoding="utf-8")


write_api()
