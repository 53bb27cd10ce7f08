"""Every public name is exported, documented and covered by a row of a table; importing the package is harmless.

A module of ``tests/cases`` says which public names its rows cover: ``COVERED = frozenset({"relu", "prox.L1", ...})``,
usually ``frozenset(CASES)``.
"""

import ast
import builtins
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Hashable
from pathlib import Path
from types import ModuleType

import nsimplicit as nsi

TESTS = Path(__file__).resolve().parent
MENUS = ("prox", "solvers", "splittings", "derivatives", "guards", "linear_solvers", "layers")


def exported(module):
    """What ``__all__`` lists, and the names it leaves out because they are builtins' (`abs`, `max`, `min`)."""
    shadows = {name for name in vars(module) if name in vars(builtins) and not name.startswith("_")}
    return [*getattr(module, "__all__", ()), *sorted(shadows - set(getattr(module, "__all__", ())))]


def public_modules():
    """The package and its menus, by the dotted prefix a user writes after ``nsi.``."""
    listed = {name for name in exported(nsi) if isinstance(getattr(nsi, name, None), ModuleType)}
    menus = sorted(listed | {menu for menu in MENUS if hasattr(nsi, menu)})
    return {"": nsi, **{f"{menu}.": getattr(nsi, menu) for menu in menus}}


def public_objects():
    """Every public function, class and constant by its dotted name."""
    return {
        prefix + name: getattr(module, name)
        for prefix, module in public_modules().items()
        for name in exported(module)
        if hasattr(module, name) and not name.startswith("__") and not isinstance(getattr(module, name), ModuleType)
    }


def test_menus_are_public():
    assert not [menu for menu in MENUS if menu not in nsi.__all__ or not isinstance(getattr(nsi, menu), ModuleType)]


def test_all_is_right():
    for prefix, module in public_modules().items():
        names = getattr(module, "__all__", None)
        assert names is not None, f"{module.__name__} has no __all__"
        assert len(names) == len(set(names)), f"{module.__name__}.__all__ lists a name twice"
        assert not [name for name in names if not hasattr(module, name)], f"nsi.{prefix}__all__ lists what is not there"
        assert not [name for name in names if name in vars(builtins)], "`from nsimplicit import *` must hide no builtin"


def is_ours(obj):
    return callable(obj) and str(getattr(obj, "__module__", "")).startswith("nsimplicit.")


def test_what_a_user_sees_is_exported():
    for prefix, module in public_modules().items():
        seen = {n for n, obj in vars(module).items() if is_ours(obj) and not n.startswith("_")}
        if hasattr(module, "__path__"):
            assert seen <= set(exported(module)), f"nsi.{prefix}__all__ misses {sorted(seen - set(exported(module)))}"


def files_of(menu):
    yield menu
    for info in pkgutil.iter_modules(getattr(menu, "__path__", ())):
        yield importlib.import_module(f"{menu.__name__}.{info.name}")


def test_every_choice_is_on_its_menu():
    for prefix, menu in list(public_modules().items())[1:]:
        bases = tuple(c for c in (getattr(menu, n) for n in exported(menu)) if inspect.isclass(c))
        for module in files_of(menu):
            for name, cls in vars(module).items():
                if inspect.isclass(cls) and not name.startswith("_") and cls.__module__ == module.__name__:
                    is_choice = issubclass(cls, bases) and not inspect.isabstract(cls)
                    assert not is_choice or cls in bases, f"nsi.{prefix}__all__ misses {name}"


def documentation_problem(name, obj):
    """What is wrong with the docstring of a function or class, or None."""
    lines = inspect.cleandoc(obj.__doc__ or "").splitlines()
    if not lines or lines[0].startswith(f"{name.split('.')[-1]}("):  # what dataclasses write by themselves
        return "has no docstring"
    if not lines[0].endswith(".") or (len(lines) > 1 and lines[1]):
        return f"does not open with a one-line summary: {lines[0]!r}"
    return None


def test_every_public_name_is_documented():
    problems = {name: documentation_problem(name, obj) for name, obj in public_objects().items() if is_ours(obj)}
    assert problems, "no public name found"
    assert not {name: problem for name, problem in problems.items() if problem}


def cases_modules():
    names = [path.stem for path in sorted((TESTS / "cases").glob("*.py")) if not path.stem.startswith("_")]
    return [importlib.import_module(f"tests.cases.{name}") for name in names]


def words_in_tests():
    """Identifiers and strings of the test code, without the ``COVERED`` declarations and this file."""
    words = set()
    for path in TESTS.rglob("*.py"):
        if path == Path(__file__).resolve():
            continue
        body = [
            node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if not (isinstance(node, ast.Assign | ast.AnnAssign) and "COVERED" in ast.unparse(node).split("=")[0])
        ]
        for node in ast.walk(ast.Module(body, [])):
            match node:
                case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word) | ast.Constant(value=word):
                    if isinstance(word, Hashable):
                        words.add(word)
    return words


def test_every_public_name_has_a_row():
    undeclared = [module.__name__ for module in cases_modules() if not hasattr(module, "COVERED")]
    assert not undeclared, f"these say nothing about what they cover: {undeclared}"
    covered = frozenset().union(*(module.COVERED for module in cases_modules()))
    public = set(public_objects())
    assert public, "no public name found"
    assert not public - covered, f"no table in tests/cases has a row for: {sorted(public - covered)}"
    assert not covered - public, f"covered, but not public: {sorted(covered - public)}"
    words = words_in_tests()
    unused = sorted(name for name in covered if name not in words and name.split(".")[-1] not in words)
    assert not unused, f"declared as covered, but no test names: {unused}"


def python(code, **environment):
    """Run code in a fresh interpreter, with nothing of this process but the path to the package."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"PATH": "", "PYTHONPATH": str(TESTS.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_touches_no_device():
    # No backend of this name exists, so asking for any device fails; the second line shows that it does.
    assert python("import nsimplicit", JAX_PLATFORMS="no_such_platform").returncode == 0
    assert "no_such_platform" in python("import jax; jax.devices()", JAX_PLATFORMS="no_such_platform").stderr


def test_import_changes_no_flag():
    result = python(
        """
        import os, sys, warnings
        import jax
        state = lambda: (dict(jax.config.values), dict(os.environ), list(warnings.filters), sys.getrecursionlimit())
        before = state()
        import nsimplicit
        after = state()
        assert before == after, [(b, a) for b, a in zip(before, after) if b != a]
        """
    )
    assert result.returncode == 0, result.stderr


def test_import_loads_only_jax():
    result = python(
        """
        import sys
        import jax
        before = set(sys.modules)
        import nsimplicit
        heavy = ("optax", "jax.scipy", "jax.experimental", "scipy", "matplotlib", "sklearn", "flax", "equinox")
        new = {module for module in set(sys.modules) - before for name in heavy if f"{module}.".startswith(f"{name}.")}
        assert not new, sorted(new)
        """
    )
    assert result.returncode == 0, result.stderr
