"""Trees of findings are data: the one that comes with the library, and a reader's own."""

import json
import re

import pytest

from medic.data.taxonomy import Taxonomy, read_taxonomy
from medic.errors import MedicError
from medic.task import FINDINGS, NO_FINDING

EGGS = {"none": "Whole", "tree": {"Any": {"Shell": {"Crack": {}, "Dent": {}}, "Spot": {}}}}


def test_the_leaves_of_the_tree_that_comes_with_the_library_are_the_findings():
    tree = read_taxonomy()
    assert (sorted(tree.leaves), tree.none) == (sorted(FINDINGS), NO_FINDING)
    assert tree.descent((*FINDINGS, NO_FINDING))[0].tolist() == [True] * 14 + [False]
    assert all(parent < place for place, parent in enumerate(tree.parents))


def test_a_node_of_a_readers_own_tree_is_there_when_any_leaf_below_it_is(tmp_path):
    (tmp_path / "eggs.json").write_text(json.dumps(EGGS))
    tree = read_taxonomy(tmp_path / "eggs.json")
    assert (tree.nodes, tree.parents) == (("Any", "Shell", "Spot", "Crack", "Dent"), (-1, 0, 0, 1, 1))
    below = tree.descent(("Crack", "Dent", "Spot", "Whole")).astype(int).tolist()
    assert below == [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    for classes, odd in ((("Crack", "Dent"), "Spot"), (("Crack", "Dent", "Spot", "Hole"), "Hole")):
        with pytest.raises(MedicError, match=rf"the leaves of the tree and the classes differ \({odd}\)"):
            tree.descent(classes)


@pytest.mark.parametrize(
    "edges",
    [
        (("a", "b"), ("b", "")),  # the child first
        (("a", ""), ("b", "")),  # two roots
        (("a", ""), ("b", "a"), ("b", "a")),  # one node twice
        (("a", ""), ("b", "c")),  # an unknown parent
        (("a", "x"), ("b", "a")),  # no root
        (("a", ""),),
        (),
    ],
)
def test_what_is_no_tree_is_refused(edges):
    with pytest.raises(MedicError, match=r"the tree (is none at|needs a root)"):
        Taxonomy(edges)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "") for text in ("{", "[]", "{}", '{"tree": {}}', '{"tree": {"a": {}, "b": {}}}')),
        *((text, "") for text in ('{"tree": {"a": ["b"]}}', '{"tree": {"a": "b"}}')),
        ('{"tree": {"a": {}}}', "the tree needs a root"),
        ('{"tree": {"a": {"b": {"c": {}}, "d": {"c": {}}}}}', "the tree is none at 'c'"),
        ('{"tree": {"a": {"b": {"c": {}}, "d": {}, "b": {}}}}', "'b' stands twice in one place"),
        ('{"none": "x", "none": "y", "tree": {"a": {"b": {}}}}', "'none' stands twice in one place"),
    ],
)
def test_a_file_that_holds_none_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "tree.json"
    path.write_text(text)
    with pytest.raises(MedicError, match=re.escape(f"{path} holds no tree of findings: {said}")):
        read_taxonomy(path)


def test_a_file_that_is_not_there_or_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(MedicError, match=r"there is no tree of findings at .*none\.json"):
        read_taxonomy(tmp_path / "none.json")
    with pytest.raises(MedicError, match="holds no tree of findings"):
        read_taxonomy(tmp_path)
