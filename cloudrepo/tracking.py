"""Which sections of the state a block of code may have changed.

The three collections of `Database.data` are dicts that tell when a record is handed out, written or deleted. So a
transaction compares, writes and undoes what it touched, and costs that much however large the state is. Who only
looks at many records uses `cloudrepo.state.all_slices`, which tells nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cloudrepo.state import COLLECTIONS, Key, Record, ShapeError, fingerprint, restored

_MISSING = object()


class Collection(dict[Any, Any]):
    """A dict that tells before it gives away or changes a value.

    Attributes:
        tell: called with the key; None = with nobody to be told.
    """

    __slots__ = ("tell",)
    tell: Callable[[Any], None] | None

    def __init__(self, content: Any = ()) -> None:
        super().__init__(content)
        self.tell = None

    def _touch(self, *keys: Any) -> None:
        if self.tell is not None:
            for key in keys:
                self.tell(key)

    def __getitem__(self, key: Any) -> Any:
        self._touch(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._touch(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self._touch(key)
        super().__delitem__(key)

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()  # a class that has one of its own is copied by `keys` and `[]`: dict(…), {**…}

    def __or__(self, other: Any) -> Any:  # a copy gives every value away
        return self.copy() | other if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return other | self.copy() if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Collection:  # as dict: in place
        self.update(other)
        return self

    def get(self, key: Any, default: Any = None) -> Any:
        """As dict."""
        self._touch(key)
        return super().get(key, default)

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """As dict."""
        self._touch(key)
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def popitem(self) -> tuple[Any, Any]:
        """As dict."""
        self._touch(*self)
        return super().popitem()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict."""
        self._touch(key)
        return super().setdefault(key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As dict."""
        new = dict(*args, **kwargs)
        self._touch(*new)
        super().update(new)

    def clear(self) -> None:
        """As dict."""
        self._touch(*self)
        super().clear()

    def copy(self) -> dict[Any, Any]:
        """As dict; every value is handed out."""
        return dict(self.items())

    def values(self) -> Any:
        """As dict; every value is handed out."""
        self._touch(*self)
        return super().values()

    def items(self) -> Any:
        """As dict; every value is handed out."""
        self._touch(*self)
        return super().items()


class Touched:
    """What one transaction may have changed, and how it was before.

    Args:
        data: the state.
        collections: its collections.
        is_inner: within another one, which goes on when this one is undone: what it took must stay part of the state.
    """

    def __init__(self, data: Record, collections: dict[str, Collection], *, is_inner: bool) -> None:
        self._data = data
        self._collections = collections
        self._is_inner = is_inner
        self.before: dict[tuple[str, Any], bytes | None] = {}
        self._values: dict[tuple[str, Any], Any] = {}
        self._parts: dict[tuple[str, Any], list[tuple[Any, Any]]] = {}
        self._orders = {top: tuple(collection) for top, collection in collections.items()}
        for top, value in data.items():
            if top not in COLLECTIONS:
                self._keep((top, ""), value)

    def note(self, top: str, name: Any) -> None:
        """A section is about to be given away or changed."""
        if (top, name) not in self.before:
            value = dict.get(self._collections[top], name, _MISSING)
            if value is _MISSING:
                self.before[top, name] = None
            else:
                self._keep((top, name), value)

    def _keep(self, key: tuple[str, Any], value: Any) -> None:
        self.before[key] = fingerprint(value, key)
        self._values[key] = value
        if self._is_inner:
            self._parts[key] = list(_parts(value))

    def keys(self) -> list[Key]:
        """All sections that may differ from before, in the order of the state."""
        simple = {(top, "") for top in self._data if top not in COLLECTIONS}
        return list({**self.before, **dict.fromkeys(simple)})

    def undo(self) -> None:
        """Make the state what it was before, in place."""
        for top in [top for top in self._data if top not in COLLECTIONS and (top, "") not in self.before]:
            del self._data[top]
        for top, collection in self._collections.items():
            self._data[top] = collection
        values = {key: self._put_back(key) for key in reversed(self._values)}  # of what is there twice the first counts
        for top, name in self.before:
            where, key = (self._collections[top], name) if top in COLLECTIONS else (self._data, top)
            if (top, name) in values:
                dict.__setitem__(where, key, values[top, name])
            else:
                dict.pop(where, key, None)
        for top, order in self._orders.items():
            _order(self._collections[top], order)

    def _put_back(self, key: tuple[str, Any]) -> Any:
        """A section's value as it was: the same object, and in an inner block of the same objects."""
        value, printed = self._values[key], self.before[key]
        if not self._is_inner and printed is not None:
            return _refill(value, restored(printed))
        for part, content in self._parts[key]:
            _refill(part, content)
        return value


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each mapping and list of a plain value, with its content."""
    if isinstance(value, dict | list):
        yield value, value.copy()
        for part in value.values() if isinstance(value, dict) else value:
            if isinstance(part, dict | list):
                yield from _parts(part)


def _refill(value: Any, content: Any) -> Any:
    """Give a mapping or list an earlier content back; who reads it meanwhile hardly ever finds it empty."""
    if isinstance(value, list):
        value[:] = content
    elif isinstance(value, dict):
        for key in [key for key in value if key not in content]:
            del value[key]
        value.update(content)
        if list(value) != list(content):
            value.clear()
            value.update(content)
    else:
        return content
    return value


def _order(collection: Collection, order: Iterable[Any]) -> None:
    """Put the entries back into an order that they had."""
    if tuple(collection) != order:
        content = {key: dict.__getitem__(collection, key) for key in order}
        dict.clear(collection)
        dict.update(collection, content)


class Tracker:
    """Makes the collections of a state tell, and keeps what is told while a transaction is under way.

    Args:
        data: the state; its collections are replaced by ones that tell.
    """

    def __init__(self, data: Record) -> None:
        self.data = data
        self.collections: dict[str, Collection] = {}
        self._stack: list[Touched] = []
        for top in COLLECTIONS:
            self.collections[top] = data[top] = Collection(data[top])

    @property
    def depth(self) -> int:
        """How many blocks are under way, one in the other."""
        return len(self._stack)

    def begin(self) -> Touched:
        """A block begins."""
        touched = Touched(self.data, self.collections, is_inner=bool(self._stack))
        self._stack.append(touched)
        for top, collection in self.collections.items():
            collection.tell = lambda name, top=top: self._note(top, name)
        return touched

    def end(self) -> None:
        """The innermost block ended; the blocks around it noted with it what it touched."""
        self._stack.pop()
        if not self._stack:
            for collection in self.collections.values():
                collection.tell = None

    def _note(self, top: str, name: Any) -> None:
        for touched in self._stack:
            touched.note(top, name)

    def gather(self) -> None:
        """Take the content of collections that the block replaced by other mappings.

        Raises:
            ShapeError: by something that is none.
        """
        for top, collection in self.collections.items():
            found = self.data.get(top)
            if found is collection:
                continue
            if not isinstance(found, dict):
                raise ShapeError((top,), "a mapping is wanted" if top in self.data else "the state has lost this key")
            content = dict(found)
            collection.clear()
            collection.update(content)
            self.data[top] = collection
