"""Trees of findings: which finding is a kind of which, read from a file so that a reader can change it."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medic.errors import MedicError

CHEST_XRAY_TREE = Path(__file__).parent / "taxonomies" / "chest_xray.json"
"""The tree of the 14 findings of NIH ChestX-ray14 that comes with the library."""


class Taxonomy(NamedTuple):
    """A tree whose leaves are classes of a multilabel task."""

    edges: tuple[tuple[str, str], ...]  # each node and its parent, parents before their children; the root's is empty
    none: str | None = None  # the class that says that nothing of the tree is there

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, parents before their children."""
        return tuple(node for node, _ in self.edges)

    @property
    def parents(self) -> tuple[int, ...]:
        """For each node the place of its parent among ``nodes``; -1 for the root."""
        return tuple(self.nodes.index(parent) if parent else -1 for _, parent in self.edges)

    def descent(self, classes: tuple[str, ...]) -> np.ndarray:
        """Return which classes make which nodes true: bool (nodes, C); a node is there when any leaf below it is.

        Raises:
            MedicError: the leaves are not the classes (but for ``none``).
        """
        leaves = set(self.nodes) - {parent for _, parent in self.edges}
        if odd := leaves ^ (set(classes) - {self.none}):
            named = ", ".join(sorted(odd))
            raise MedicError(f"the leaves of the tree and the classes differ ({named}); change the tree or the task")
        below = np.array([[node == name for name in classes] for node in self.nodes])
        for place in range(len(below) - 1, 0, -1):
            below[self.parents[place]] |= below[place]
        return below


def read_taxonomy(path: str | os.PathLike = CHEST_XRAY_TREE) -> Taxonomy:
    """Read a tree from JSON: ``{"none": NAME or absent, "tree": {ROOT: {GROUP: {LEAF: {}, ...}, ...}}}``.

    Raises:
        MedicError: the file is absent, no JSON of this form, has no root or several, or a name twice.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        (root,) = content["tree"].items()
        edges, waiting = [], [(*root, "")]
        for node, children, parent in waiting:
            edges.append((node, parent))
            waiting += [(child, below, node) for child, below in children.items()]
        if len(dict(edges)) < len(edges):
            raise ValueError("a name stands twice")
        return Taxonomy(tuple(edges), content.get("none"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        form = 'it should be {"tree": {"root": {"leaf": {}}}}, with one root and each name once'
        raise MedicError(f"{path} holds no tree of findings ({error}); {form}") from error
