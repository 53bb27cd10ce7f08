"""Menus whose entries are imported when they are first asked for: most programs need a few of many."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def menu(package: str, path: str) -> tuple[list[str], Callable[[str], Any]]:
    """The ``__all__`` and the ``__getattr__`` of a package whose ``__init__.pyi`` imports its entries.

    The stub is the only list: type checkers read it, and so does this.
    """
    lines = ast.parse(Path(path).with_suffix(".pyi").read_text(encoding="utf-8")).body
    files = {name.name: line.module for line in lines if isinstance(line, ast.ImportFrom) for name in line.names}

    def get(name: str) -> Any:
        if name not in files:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(files[name] or package), name)

    return sorted(files), get
