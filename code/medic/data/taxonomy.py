"""Trees of findings: which finding is a kind of which, read from a file so that a reader can change it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medic.errors import MedicError

CHEST_XRAY_TREE = Path(__file__).parent / "taxonomies" / "chest_xray.json"
"""The tree of the 14 findings of NIH ChestX-ray14 that comes with the library."""


@dataclass(frozen=True)
class Taxonomy:
    """A tree whose leaves are classes of a multilabel task.

    Attributes:
        edges: each node and its parent, parents before their children; the root's parent is empty.
        none: the class that says that nothing of the tree is there; None where the file names none.
    """

    edges: tuple[tuple[str, str], ...]
    none: str | None = None

    def __post_init__(self) -> None:
        if len(self.edges) < 2:
            raise MedicError("the tree needs a root and at least one node below it")
        known = {""}
        for place, (node, parent) in enumerate(self.edges):
            if node in known or parent not in known or (place == 0) != (parent == ""):
                raise MedicError(
                    f"the tree is none at {node!r} (below {parent!r}): it needs one root with an empty parent, every "
                    "other node once, after its parent"
                )
            known.add(node)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, parents before their children."""
        return tuple(node for node, _ in self.edges)

    @property
    def parents(self) -> tuple[int, ...]:
        """For each node the place of its parent among ``nodes``; -1 for the root."""
        places = {node: place for place, node in enumerate(self.nodes)}
        return tuple(places.get(parent, -1) for _, parent in self.edges)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The nodes without children."""
        parents = {parent for _, parent in self.edges}
        return tuple(node for node in self.nodes if node not in parents)

    def descent(self, classes: tuple[str, ...]) -> np.ndarray:
        """Which classes make which nodes true: bool (nodes, C); a node is there when any leaf below it is.

        Raises:
            MedicError: the leaves are not the classes (but for ``none``).
        """
        asked = set(classes) - {self.none}
        if set(self.leaves) != asked:
            odd = ", ".join(sorted(set(self.leaves) ^ asked))
            raise MedicError(f"the leaves of the tree and the classes differ ({odd}); change the tree or the task")
        below = np.array([[node == name for name in classes] for node in self.nodes])
        for place, parent in reversed(list(enumerate(self.parents))):
            if parent >= 0:
                below[parent] |= below[place]
        return below


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; a name that stands twice in it would lose what is below its first place."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} stands twice in one place")
    return dict(pairs)


def read_taxonomy(path: str | os.PathLike = CHEST_XRAY_TREE) -> Taxonomy:
    """Read a tree from JSON: ``{"none": NAME or absent, "tree": {ROOT: {GROUP: {LEAF: {}, ...}, ...}}}``.

    Raises:
        MedicError: the file is absent, no JSON of this form, has a name twice, or no tree; the message names it.
    """
    if not Path(path).exists():
        raise MedicError(f"there is no tree of findings at {path}; correct the path")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_once)
        (root,) = content["tree"].items()
        edges: list[tuple[str, str]] = []
        waiting = [(*root, "")]
        while waiting:
            node, children, parent = waiting.pop(0)
            edges.append((node, parent))
            waiting += [(child, below, node) for child, below in children.items()]
        return Taxonomy(tuple(edges), content.get("none"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MedicError) as error:
        form = "" if isinstance(error, MedicError) else '; it should be {"tree": {"root": {"leaf": {}}}}'
        raise MedicError(f"{path} holds no tree of findings: {error}{form}") from error
