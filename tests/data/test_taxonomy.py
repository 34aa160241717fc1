"""Trees of findings are data: the one that comes with the library, and a reader's own."""

import json
import re

import numpy as np
import pytest

from medic.data.taxonomy import Taxonomy, read_taxonomy
from medic.errors import MedicError
from medic.task import FINDINGS, NO_FINDING

EGGS = {"none": "Whole", "tree": {"Any": {"Shell": {"Crack": {}, "Dent": {}}, "Spot": {}}}}


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "eggs.json"
    path.write_text(json.dumps(EGGS))
    return read_taxonomy(path)


def test_the_leaves_of_the_tree_that_comes_with_the_library_are_the_findings():
    tree = read_taxonomy()
    assert sorted(tree.leaves) == sorted(FINDINGS)
    assert tree.none == NO_FINDING
    assert tree.descent(FINDINGS)[0].all()
    assert tree.descent((*FINDINGS, NO_FINDING))[0].tolist() == [True] * 14 + [False]


def test_every_node_of_it_comes_after_its_parent():
    tree = read_taxonomy()
    assert tree.parents[0] == -1
    assert all(parent < place for place, parent in enumerate(tree.parents))
    assert len(set(tree.nodes)) == len(tree.nodes) == 1 + 5 + 14


def test_a_readers_own_tree_is_read_from_a_file(own):
    assert own.nodes == ("Any", "Shell", "Spot", "Crack", "Dent")
    assert own.parents == (-1, 0, 0, 1, 1)
    assert own.leaves == ("Spot", "Crack", "Dent")
    assert own.none == "Whole"


def test_a_node_is_there_when_any_leaf_below_it_is(own):
    below = own.descent(("Crack", "Dent", "Spot", "Whole"))
    assert dict(zip(own.nodes, below.astype(int).tolist(), strict=True)) == {
        "Any": [1, 1, 1, 0],
        "Shell": [1, 1, 0, 0],
        "Spot": [0, 0, 1, 0],
        "Crack": [1, 0, 0, 0],
        "Dent": [0, 1, 0, 0],
    }
    assert np.array_equal(own.descent(("Crack", "Dent", "Spot")), below[:, :3])


@pytest.mark.parametrize(
    ("classes", "odd"),
    [
        (("Crack", "Dent"), "Spot"),
        (("Crack", "Dent", "Spot", "Hole"), "Hole"),
        (("Crack", "Dent", "Spot", "Shell"), "Shell"),
    ],
)
def test_leaves_that_are_not_the_classes_are_named(own, classes, odd):
    with pytest.raises(MedicError, match=rf"the leaves of the tree and the classes differ \({odd}\)"):
        own.descent(classes)


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
    "text",
    ["{", "[]", "{}", '{"tree": {}}', '{"tree": {"a": {}, "b": {}}}', '{"tree": {"a": ["b"]}}', '{"tree": {"a": "b"}}'],
)
def test_a_file_that_holds_none_is_one_sentence(tmp_path, text):
    path = tmp_path / "tree.json"
    path.write_text(text)
    with pytest.raises(MedicError, match=re.escape(f"{path} holds no tree of findings")):
        read_taxonomy(path)


def test_a_file_that_is_not_there_or_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(MedicError, match=r"there is no tree of findings at .*none\.json"):
        read_taxonomy(tmp_path / "none.json")
    with pytest.raises(MedicError, match="holds no tree of findings"):
        read_taxonomy(tmp_path)


def test_a_node_twice_in_a_file_is_refused(tmp_path):
    path = tmp_path / "tree.json"
    path.write_text('{"tree": {"a": {"b": {"c": {}}, "d": {"c": {}}}}}')
    with pytest.raises(MedicError, match=re.escape(f"{path} holds no tree of findings: the tree is none at 'c'")):
        read_taxonomy(path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"tree": {"a": {"b": {"c": {}}, "d": {}, "b": {}}}}', "b"),
        ('{"none": "x", "none": "y", "tree": {"a": {"b": {}}}}', "none"),
    ],
)
def test_a_name_twice_in_one_place_is_refused_and_not_halved(tmp_path, text, name):
    path = tmp_path / "tree.json"
    path.write_text(text)
    with pytest.raises(MedicError, match=f"tree.json holds no tree of findings: '{name}' stands twice in one place"):
        read_taxonomy(path)


def test_a_tree_without_a_leaf_names_its_file(tmp_path):
    path = tmp_path / "tree.json"
    path.write_text('{"tree": {"a": {}}}')
    with pytest.raises(MedicError, match=re.escape(f"{path} holds no tree of findings: the tree needs a root")):
        read_taxonomy(path)
