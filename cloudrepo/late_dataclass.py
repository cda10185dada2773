"""A `dataclass` whose methods are written when its first object is made, or somebody asks for its fields.

Python compiles five or six methods for each frozen dataclass, which takes 0.6 ms. A command loads up to 160 of them
and makes objects of a few. What is written in the end is the standard library's own work, so objects behave, and are
as fast, as if it had been written at once. A mistake in a declaration is met later, and before the first object
`inspect.signature` knows no parameters.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

_writing = threading.RLock()  # again by the same thread: a class is written after those it inherits from


class _Unwritten:
    """Stands in a class where its fields will be, and has it written for whoever looks at them."""

    def __init__(self, cls: type, options: dict[str, Any]) -> None:
        self.cls = cls
        self.options = options
        self.stand_in: Any = None
        self.init: Any = None

    def __get__(self, _instance: object, _owner: type) -> Any:
        self.written_init()
        return self.cls.__dict__["__dataclass_fields__"]

    def written_init(self) -> Any:
        """Have the methods written; `__init__` is exchanged last and at once, since other threads make objects."""
        with _writing:
            if self.init is None:
                before = dict(vars(self.cls))
                try:
                    self.init = self._write()
                except BaseException:  # Ctrl-C, too: else the next one would be written upon half of this one
                    _restore(self.cls, before)
                    raise
                if self.cls.__dict__["__init__"] is self.stand_in:  # and nobody has wrapped it
                    self.cls.__init__ = self.init  # type: ignore[misc]
        return self.init

    def _write(self) -> Any:
        """All methods but `__init__`, which is made for an heir: in the class itself the stand-in holds its place."""
        cls = self.cls
        dataclasses.dataclass(init=False, **self.options)(cls)
        heir = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__ or cls.__name__})
        frozen = self.options.get("frozen", False)
        made = vars(dataclasses.dataclass(repr=False, eq=False, frozen=frozen)(heir))["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made


def _restore(cls: type, before: dict[str, Any]) -> None:
    """Make a class what it was."""
    for name in vars(cls).keys() - before.keys():
        delattr(cls, name)
    for name, value in before.items():
        if vars(cls).get(name) is not value:
            setattr(cls, name, value)


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        """As `dataclasses.dataclass`, without `init`, `slots` and `weakref_slot`.

        Objects must be made by calling the class: one that was unpickled before is no dataclass yet.
        """
        if cls is None:
            return lambda it: dataclass(it, **options)
        if "__init__" in cls.__dict__:
            raise TypeError(f"{cls.__qualname__} has an __init__ of its own: take dataclasses.dataclass")
        unwritten = _Unwritten(cls, options)

        def __init__(self, *args: Any, **values: Any) -> None:
            unwritten.written_init()(self, *args, **values)

        cls.__init__ = unwritten.stand_in = __init__
        cls.__dataclass_fields__ = unwritten
        return cls
