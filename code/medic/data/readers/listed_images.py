"""The images that a table lists, found in their store: with or without folder and ending, wherever they lie."""

from __future__ import annotations

import sys
from collections import Counter
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
    stored, pending = store.images(), {name: _path(name) for name in listed}
    hits: dict[str, list[str]] = {}
    other_endings = []
    for spell in (str, _without_ending, _in_small_letters):
        found = _matches(pending, stored, spell) if pending else {}
        hits |= found
        pending = {name: path for name, path in pending.items() if name not in found}
        if spell is not str:
            other_endings += [name for name in found if is_image_name(name)]
    hits |= {name: [path] for name, path in pending.items() if path in store}
    if other_endings:
        first = other_endings[0]
        print(
            f"{len(other_endings)} listed images have another ending in {store.location.name}, such as "
            f"{hits[first][0]} for {first}; they are taken as the same",
            file=sys.stderr,
        )
    chosen = _chosen(hits, store)
    return [chosen.get(name, name) for name in listed]


def stem(name: str) -> str:
    """A file's name without its folder and without the ending of an image file."""
    return _without_ending(_path(name)).rpartition("/")[2]


def _path(name: str) -> str:
    return composed(name.replace("\\", "/").removeprefix("./")) if "\\" in name or name[:1] == "." else composed(name)


def _without_ending(name: str) -> str:
    return name.rpartition(".")[0] if is_image_name(name) else name


def _in_small_letters(name: str) -> str:
    return _without_ending(name).casefold()


def _matches(pending: dict[str, str], stored: list[str], spell: Callable[[str], str]) -> dict[str, list[str]]:
    """Of each name that matches, all files it could be: one is the end of the other, in whole folders."""
    whole: dict[str, list[str]] = {}
    for name in stored:
        whole.setdefault(spell(name), []).append(name)
    found, others = {}, {}
    for name, path in pending.items():
        key = spell(path)
        if key in whole:
            found[name] = whole[key]
        else:
            others[name] = key
    for depth in {key.count("/") + 1 for key in others.values()}:
        ends: dict[str, list[str]] = {}
        for key, names in whole.items():
            if (end := _end(key, depth)) in ends:
                ends[end] = ends[end] + names
            else:
                ends[end] = names
        for name, key in others.items():
            if key.count("/") + 1 == depth:
                shorter = (whole.get(_end(key, fewer)) for fewer in range(depth - 1, 0, -1))
                if fitting := ends.get(key) or next(filter(None, shorter), None):
                    found[name] = fitting
    return found


def _end(path: str, parts: int) -> str:
    """The last parts of a path, or all of it where it has fewer."""
    return path.rpartition("/")[2] if parts == 1 else "/".join(path.rsplit("/", parts)[-parts:])


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
        f"{len(several)} listed images lie at several places in {store.location.name}; those in "
        f"{_folder(chosen[several[0]]) or 'the outermost folder'}, which has most, are taken",
        file=sys.stderr,
    )
    return chosen


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
