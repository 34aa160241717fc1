"""The images that a table lists, found in their store: with or without folder and ending, wherever they lie."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from medic.data.stores import Store, composed, is_image_name
from medic.errors import MedicError


def find_images(listed: Sequence[str], store: Store) -> list[str]:
    """For each listed image its name in the store, or the listed name where it is absent.

    A name is compared as written, then without the ending of an image, then in small letters. Folders in both names
    must agree as far as both have them. What could be several files is the one in the folder that has most of the
    listed images. A match by another ending, and a choice between folders, are said on stderr.

    Args:
        listed: names, each once.
        store: where to look, in all folders.

    Raises:
        MedicError: a listed image could be two files, and neither folder has more of the listed ones.
    """
    stored = store.images()
    hits: dict[str, list[str]] = {}
    other_endings = []
    for spell in (_as_written, _without_ending, _in_small_letters):
        pending = [name for name in listed if name not in hits]
        if not pending:
            break
        found = _matches(pending, stored, spell)
        hits |= found
        if spell is not _as_written:
            other_endings += [name for name in found if is_image_name(name)]
    for name in listed:
        if name not in hits and name in store:
            hits[name] = [composed(name)]
    if other_endings:
        first = other_endings[0]
        print(
            f"{len(other_endings)} listed images have another ending in {store.location}, such as {hits[first][0]} for "
            f"{first}; they are taken as the same",
            file=sys.stderr,
        )
    chosen = _chosen(hits, store)
    return [chosen.get(name, name) for name in listed]


def stem(name: str) -> str:
    """A file's name without its folder and without the ending of an image file."""
    return _without_ending(name).rpartition("/")[2]


def _as_written(name: str) -> str:
    return composed(name.replace("\\", "/").removeprefix("./"))


def _without_ending(name: str) -> str:
    name = _as_written(name)
    return name.rpartition(".")[0] if is_image_name(name) else name


def _in_small_letters(name: str) -> str:
    return _without_ending(name).casefold()


def _matches(pending: list[str], stored: list[str], spell: Callable[[str], str]) -> dict[str, list[str]]:
    """Of each name that matches, all files it could be: one is the end of the other, in whole folders."""
    whole: dict[str, list[str]] = {}
    spelled = [(spell(name), name) for name in stored]
    for key, name in spelled:
        whole.setdefault(key, []).append(name)
    ends: dict[int, dict[str, list[str]]] = {}
    for depth in {spell(name).count("/") + 1 for name in pending}:
        ends[depth] = defaultdict(list)
        for key, name in spelled:
            if key.count("/") + 1 >= depth:
                ends[depth][_end(key, depth)].append(name)
    found = {}
    for name in pending:
        key = spell(name)
        depth = key.count("/") + 1
        shorter = (whole.get(_end(key, fewer)) for fewer in range(depth - 1, 0, -1))
        fitting = whole.get(key) or ends[depth].get(key) or next(filter(None, shorter), None)
        if fitting:
            found[name] = fitting
    return found


def _end(path: str, parts: int) -> str:
    return path if path.count("/") < parts else "/".join(path.rsplit("/", parts)[1:])


def _chosen(hits: dict[str, list[str]], store: Store) -> dict[str, str]:
    """One file a listed name: of several the one in the folder that has most of all listed."""
    several = [name for name, fitting in hits.items() if len(fitting) > 1]
    chosen = {name: fitting[0] for name, fitting in hits.items()}
    if not several:
        return chosen
    covered = Counter(folder for fitting in hits.values() for folder in {_folder(place) for place in fitting})
    for name in several:
        first, second = sorted(hits[name], key=lambda place: -covered[_folder(place)])[:2]
        if covered[_folder(first)] == covered[_folder(second)]:
            raise MedicError(
                f"{store.location} holds the image {name} at two places, {first} and {second}; take one away, or name "
                "the folder or zip file that is meant (images=..., --images)"
            )
        chosen[name] = first
    print(
        f"{len(several)} listed images lie at several places in {store.location}; those in "
        f"{_folder(chosen[several[0]]) or 'the outermost folder'}, which has most, are taken",
        file=sys.stderr,
    )
    return chosen


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
