"""A library that another one imports is loaded when something of it is used.

Not `importlib.util.LazyLoader`: before Python 3.11.9 two threads that are the first to use a module of it can meet one
that is half loaded (gh-114763).
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_loading = threading.Lock()


class _LateModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        with _loading:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def defer(name: str) -> None:
    """Let `import name` load nothing until an attribute of the module is asked for; one that is loaded stays so."""
    sys.modules.setdefault(name, _LateModule(name))
