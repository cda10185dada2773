"""Images that are built once on this machine and kept for all its labs, each under the name of its recipe."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT_VERSIONS = 3


def ensure(place: Path, done: Path, *, lock: str, announce: Callable[[], None], build: Callable[[], None]) -> None:
    """Build what is not there yet, one builder at a time, and forget what older recipes made.

    Args:
        place: The folder of this recipe, `NAME-DIGEST` in the cache.
        done: What is there when all of it is.
        lock: Name of the lock; builders of other things take another, and do not wait.
        announce: Says that it takes a while.
        build: Makes `place` and, last, `done`.
    """
    if done.exists():
        return
    with one_builder(place.parent, lock):
        if not done.exists():
            announce()
            build()
            _forget_old(place.parent, f"{place.name.rpartition('-')[0]}-*")


def _forget_old(cache: Path, pattern: str) -> None:
    """Keep what the last few versions of the recipe made; labs have copies."""
    places = sorted(cache.glob(pattern), key=lambda place: place.stat().st_mtime)
    for place in places[:-_KEPT_VERSIONS]:
        shutil.rmtree(place, ignore_errors=True)


def place_copy(source: Path, target: Path) -> None:
    """Put an image at another path, unless the same is there already.

    A copy, not a link: whoever spoils an image of a lab (tests do) must not spoil the
    cache that other labs take theirs from.
    """
    if target.exists():
        there, wanted = target.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    fresh = target.with_name(f".{target.name}.new")
    shutil.copy2(source, fresh)
    fresh.replace(target)


def digest_of(recipe: Iterable[Path]) -> str:
    """Name a recipe by its files."""
    digest = hashlib.sha256()
    for path in recipe:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def one_builder(cache: Path, name: str) -> Iterator[None]:
    """Let one at a time build on this machine."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / name).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
