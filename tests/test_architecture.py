"""The shape of the source tree: who may import whom, how long a file may be, what may not be written where."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nsimplicit"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A unit is a folder or a file directly in the package. It may import units of lower levels only, so units of one
# level do not know each other. The package itself (`__init__`, `__main__`) is the top and nothing imports it.
LEVELS = [
    {"_errors", "_exchange", "_lanes", "_lazy", "_records", "_version"},
    {"_tree"},
    {"selections"},
    {"primitives"},
    {"calculus", "prox"},
    {"certificates", "linear_solvers"},
    {"implicit"},
    {"splittings", "solvers", "derivatives"},
    {"fixed_point", "custom_root", "host", "compare", "history", "diagnose", "certify"},
    {"layers", "bilevel", "optim", "ode", "integral", "parametric", "testing"},
    {"compat"},
    {"__init__", "__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}

# JAX promises nothing about these; these files pay the price for everyone. `jax.core.Tracer` is the documented way
# to ask whether a value is traced.
INTERNALS = ("jax._src", "jax.interpreters", "jax.extend", "jax.core", "jaxlib")
NOT_INTERNAL = {"jax.core.Tracer"}
MAY_USE_INTERNALS = {
    "primitives/switch.py",
    "primitives/ordering.py",
    "primitives/forward_only.py",  # an identity whose transpose raises; no public API can say that under vmap
    "calculus/program.py",
    "calculus/layer.py",
    "calculus/replay.py",
}

# These choose a selection for the user; the package's own primitives let the user choose.
CHOOSES_SELECTION = {
    *(f"jax.numpy.{name}" for name in "abs absolute fabs sign maximum minimum fmax fmin clip linalg.norm".split()),
    *(f"jax.lax.{name}" for name in "abs sign max min clamp".split()),
    *(f"jax.nn.{name}" for name in "relu relu6 leaky_relu hard_tanh".split()),
}
MUST_NOT_CHOOSE = ("prox/", "splittings/", "layers/")

# path -> why this file is worth its length; nothing may pass 400 lines.
LONG_FILES: dict[str, str] = {}
SMELL, FAILURE = 250, 400


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path):
    """Every import in a file as (line, module, name, local name); name is None for ``import module``."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, base, alias.name, alias.asname or alias.name


def own_imports(path):
    """The (line, module) pairs of this package that a file imports; ``from package import module`` is resolved."""
    for line, base, name, _ in imports(path):
        if base.split(".")[0] == "nsimplicit":
            inner = f"{base}.{name}"
            yield line, inner if inner in MODULES or (ROOT / inner.replace(".", "/")).is_dir() else base


def unit_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def uses(path):
    """Every (line, dotted name) a file imports or spells out, with its import aliases resolved."""
    found, origin = set(), {}
    for line, base, name, local in imports(path):
        full = f"{base}.{name}" if name else base
        found.add((line, full))
        origin[local] = full if name or local != base.split(".")[0] else local
    for node in ast.walk(parse(path)):
        attributes, root = [], node
        while isinstance(root, ast.Attribute):
            attributes.append(root.attr)
            root = root.value
        if isinstance(root, ast.Name) and root.id in origin:
            found.add((node.lineno, ".".join([origin[root.id], *reversed(attributes)])))
    return found


def test_every_module_has_a_level():
    missing = {unit_of(module) for module in MODULES} - set(LEVEL)
    assert not missing, f"say in LEVELS where these belong: {sorted(missing)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_strictly_down(path):
    here = unit_of(module_name(path))
    wrong = [
        f"line {line}: {here} must not import {module}, which is not below it"
        for line, module in own_imports(path)
        if unit_of(module) != here and not LEVEL.get(unit_of(module), 99) < LEVEL[here]
    ]
    assert not wrong, "\n".join([relative(path), *wrong])


def test_no_import_cycles_inside_a_folder():
    graph = {
        module: {target for _, target in own_imports(path) if target in MODULES and target != module}
        for module, path in MODULES.items()
    }
    done, trail = set(), []

    def visit(module):
        assert module not in trail, "import cycle: " + " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        trail.append(module)
        for target in sorted(graph[module]):
            visit(target)
        done.add(trail.pop())

    for module in sorted(graph):
        visit(module)


def test_files_are_short():
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: n for name, n in lengths.items() if n > FAILURE}, "split these"
    long = {name for name, n in lengths.items() if n > SMELL}
    assert long == set(LONG_FILES), f"split, or explain in LONG_FILES: {long ^ set(LONG_FILES)}"


def is_internal(dotted):
    inside = any(dotted == name or dotted.startswith(name + ".") for name in INTERNALS)
    return inside and not any(dotted == name or dotted.startswith(name + ".") for name in NOT_INTERNAL)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_jax_internals_stay_in_three_files(path):
    if relative(path) in MAY_USE_INTERNALS:
        return
    found = {(line, name) for line, name in uses(path) if is_internal(name) and name != "jax.core"}
    assert not found, f"{relative(path)}: {sorted(found)}"


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).startswith(MUST_NOT_CHOOSE)], ids=relative)
def test_kinks_go_through_our_primitives(path):
    found = {(line, name) for line, name in uses(path) if name in CHOOSES_SELECTION}
    assert not found, f"{relative(path)}: {sorted(found)}"


def test_no_dumping_grounds():
    pattern = re.compile(r"(misc|utils?|helpers?)$")
    assert not [relative(path) for path in SOURCES if pattern.search(path.stem)]


def test_nothing_is_left_for_later():
    # `[T]`: so that this line does not find itself.
    later = re.compile(
        r"\b([T]ODO|[F]IXME|[X]XX|raise [N]otImplementedError)\b|pytest\.(mark\.)?([s]kip|[x]fail|[i]mportorskip)"
    )
    found = []
    for folder in ("nsimplicit", "tests", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if later.search(line)]
    assert not found, "\n".join(found)
