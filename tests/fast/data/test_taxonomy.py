"""Trees of findings are data: the one that comes with the library, and a reader's own."""

import json
import re

import pytest

from medic.data.taxonomy import read_taxonomy
from medic.errors import MedicError
from medic.task import FINDINGS, NO_FINDING


def test_the_leaves_of_the_tree_that_comes_with_the_library_are_the_findings():
    tree = read_taxonomy()
    assert tree.none == NO_FINDING
    assert tree.descent((*FINDINGS, NO_FINDING))[0].tolist() == [True] * 14 + [False]
    assert all(parent < place for place, parent in enumerate(tree.parents))


def test_a_node_of_a_readers_own_tree_is_there_when_any_leaf_below_it_is(tmp_path):
    eggs = {"none": "Whole", "tree": {"Any": {"Shell": {"Crack": {}, "Dent": {}}, "Spot": {}}}}
    (tmp_path / "eggs.json").write_text(json.dumps(eggs))
    tree = read_taxonomy(tmp_path / "eggs.json")
    assert (tree.nodes, tree.parents) == (("Any", "Shell", "Spot", "Crack", "Dent"), (-1, 0, 0, 1, 1))
    below = tree.descent(("Crack", "Dent", "Spot", "Whole")).astype(int).tolist()
    assert below == [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    for classes, odd in ((("Crack", "Dent"), "Spot"), (("Crack", "Dent", "Spot", "Hole"), "Hole")):
        with pytest.raises(MedicError, match=rf"the leaves of the tree and the classes differ \({odd}\)"):
            tree.descent(classes)


@pytest.mark.parametrize(
    "text",
    [
        None,
        *("{", "[]", "{}", '{"tree": 3}', '{"tree": {"a": ["b"]}}', '{"tree": {"a": "b"}}'),
        *('{"tree": {}}', '{"tree": {"a": {}, "b": {}}}', '{"tree": {"a": {"b": {"c": {}}, "d": {"c": {}}}}}'),
    ],
)
def test_a_file_that_holds_none_is_one_sentence(tmp_path, text):
    path = tmp_path / "tree.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MedicError, match=re.escape(f"{path} holds no tree of findings (")):
        read_taxonomy(path)
