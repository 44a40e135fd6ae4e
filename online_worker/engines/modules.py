"""Users' modules: read afresh for each generation, with their neighbours in reach."""

import importlib.machinery
import importlib.util
import itertools
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, ModuleType

_numbers = itertools.count(1)
_lock = threading.RLock()
_folders: Counter[str] = Counter()
"""How many modules that are alive were loaded from each folder."""
_neighbours: dict[str, set[str]] = {}
"""What the modules of each folder imported from it, by the names in ``sys.modules``."""


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: byte code on disk counts as fresh for a second after a change of equal length."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - there is one module to a loader
        """The code of the source as it is now."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class ModuleFile:
    """A module that was loaded from a file, under a name that no other has; its folder is searched by imports.

    Its neighbours are read afresh too: what an earlier load from the same folder imported is forgotten first. Modules
    that are alive keep what they hold of it.
    """

    def __init__(self, path: Path) -> None:
        """Run the file.

        Raises
        ------
        BaseException
            Whatever its code raises; nothing of it is left then.
        """
        name = f"endpoint_module_{next(_numbers)}_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
        spec = importlib.util.spec_from_file_location(name, path, loader=_FreshLoader(name, str(path)))
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded as a Python module.")
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        self._folder = str(path.resolve().parent)
        with _lock:
            self._enter()
            before = set(sys.modules)
            try:
                spec.loader.exec_module(self.module)
            except BaseException:
                self.release()
                raise
            finally:
                _neighbours[self._folder] = _imported_from(self._folder, before)

    def _enter(self) -> None:
        for neighbour in _neighbours.pop(self._folder, ()):
            sys.modules.pop(neighbour, None)
        importlib.invalidate_caches()
        sys.modules[self.module.__name__] = self.module
        _folders[self._folder] += 1
        if self._folder not in sys.path:
            # At the end: a neighbour that is named like a module of the standard library must not take its place.
            sys.path.append(self._folder)

    def release(self) -> None:
        """Forget the module, and search its folder no more once no module from there is left."""
        with _lock:
            sys.modules.pop(self.module.__name__, None)
            _folders[self._folder] -= 1
            if _folders[self._folder] > 0:
                return
            del _folders[self._folder]
            if self._folder in sys.path:
                sys.path.remove(self._folder)


def _imported_from(folder: str, before: set[str]) -> set[str]:
    """The modules and packages right in the folder that were imported since, with all that is below them."""
    found = set()
    for name in set(sys.modules) - before:
        top = name.partition(".")[0]
        origin = getattr(sys.modules.get(top), "__file__", None)
        if top not in before and origin is not None:
            path = Path(origin)
            home = path.parent.parent if path.name == "__init__.py" else path.parent
            if str(home) == folder and path.suffix == ".py":
                found.add(name)
    return found
