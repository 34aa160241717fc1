"""The documentation site: Markdown and the notebooks as they are committed.

Sphinx reads one folder, and the notebooks are outside this one: `make docs` lays both, and their figures, side by side
in ``_build/source`` and builds from there.
"""

project = "MEDIC"
author = "MEDIC contributors"
copyright = "2026, MEDIC contributors"

extensions = ["myst_nb"]
exclude_patterns = ["_build", "**/README.md"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The notebooks are committed executed, and the tests run each of them twice; a build shows what was committed.
nb_execution_mode = "off"
# Recorded scalars carry a type of their own for programs, with a line of text for people, which is what is shown.
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "alabaster"
html_title = "MEDIC: medical image classification, from pixels to endpoint"
html_theme_options = {"description": "From pixels to endpoint", "page_width": "70rem", "fixed_sidebar": True}
