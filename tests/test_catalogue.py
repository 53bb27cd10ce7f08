"""The catalogue has a row for every public prox, and the table of laws for every class among them."""

import inspect
import re
from pathlib import Path

import pytest

from nsimplicit import prox
from tests.cases import prox_nonconvex
from tests.cases.prox import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "catalogue.md"
TEXT = PAGE.read_text(encoding="utf-8")
FIRST_CELLS = re.findall(r"^\| `(\w+)(?:\((.*?)\))?` \|", TEXT, re.M)
PICTURES = re.findall(r"^!\[([^\]]*)\]\((images/[^)]+)\)$", TEXT, re.M)
CLASSES = {name: cls for name in prox.__all__ if inspect.isclass(cls := getattr(prox, name))}
# Classes to derive from, and sets that are not convex, whose laws are those of tests/test_prox_nonconvex*.py
# and tests/test_prox_spectral_edges.py.
NO_ROW = {"Function", "Set", "Smooth", "L0Ball", "L1Sphere", "L2Sphere", "SparseSimplex", "RankBall", "Stiefel"}


def test_every_public_name_is_in_the_catalogue():
    names = [name for name, _ in FIRST_CELLS]
    assert not set(prox.__all__) - set(names), f"no row for: {sorted(set(prox.__all__) - set(names))}"
    assert not set(names) - set(prox.__all__), f"not public: {sorted(set(names) - set(prox.__all__))}"
    twice = {name for name in names if names.count(name) > 1} - {"activation"}  # a row for each activation
    assert not twice, f"two rows for: {sorted(twice)}"


def test_every_class_has_a_row_in_the_table_of_laws():
    made = [row.function for row in ROWS.values()]
    made += [row.make(*row.params) for row in prox_nonconvex.ROWS.values()]
    without = set(CLASSES) - {type(g).__name__ for g in made}
    assert not without - NO_ROW, f"no row in tests/cases: {sorted(without - NO_ROW)}"
    assert NO_ROW == without, f"has a row by now: {sorted(NO_ROW - without)}"


@pytest.mark.parametrize(("name", "arguments"), FIRST_CELLS, ids=lambda value: value)
def test_rows_show_parameters_in_their_order(name, arguments):
    """Those shown are the first of the signature."""
    shown = [a.strip() for a in arguments.split(",") if a.strip() and '"' not in a]
    parameters = [p.replace("*", "") for p in shown]
    assert parameters == list(inspect.signature(getattr(prox, name)).parameters)[: len(parameters)]


def test_pictures_are_described_and_small():
    assert len(PICTURES) >= 5
    sizes = {link: (PAGE.parent / link).stat().st_size for _, link in PICTURES}
    assert all(len(alt) > 20 for alt, _ in PICTURES)
    assert max(sizes.values()) < 60_000, sizes
