"""The report of kinks: what, where, how many, how near; and nothing where there is none."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nsimplicit as nsi

from .cases.programs import PROGRAMS, TIED, ZERO

SMOOTH = [row for row in PROGRAMS if not row.kinks and not row.opaque]


def test_rows_say_what_how_many_and_how_near():
    x = jnp.array([0.0, 2.0, -0.5])
    report = nsi.kinks(lambda x: nsi.relu(x) + jnp.abs(x - 2.0) * jnp.max(x))(x)
    assert isinstance(report, nsi.KinkReport)
    rows = {row.operation: row for row in report.rows}
    assert {name: (row.size, row.num_active, row.shape) for name, row in rows.items()} == {
        "relu": (3, 1, (3,)),
        "abs": (3, 1, (3,)),
        "max": (2, 0, (3,)),
    }
    assert [rows[name].distance for name in ("relu", "abs", "max")] == [0.0, 0.0, 2.0]
    assert rows["max"].relative == 1.0 and report.rows[-1].operation == "max"
    assert (report.num_active, report.num_jumps, report.opaque) == (2, 0, ())
    assert report.tolerance == np.finfo(float).eps ** 0.5


def test_distances_are_those_of_the_operands():
    x = jnp.array([0.25, -0.75])
    (row,) = nsi.kinks(lambda x: jnp.maximum(4 * x, 0.0))(x).rows
    assert (row.distance, row.num_active) == (1.0, 0)
    np.testing.assert_allclose(row.relative, 1 / 3)
    assert nsi.kinks(lambda x: jnp.maximum(4 * x, 0.0), tolerance=0.34)(x).num_active == 1


def first(x):
    return jax.nn.relu(x)


def second(x):
    return 2 * jax.nn.relu(x)  # the trace of relu is cached: its own line is that of its first caller


def test_lines_are_the_users():
    lines = {fun.__name__: inspect.getsourcelines(fun)[1] + 1 for fun in (first, second)}
    for fun in (first, second, first):
        (row,) = nsi.kinks(fun)(ZERO).rows
        assert row.place == f"test_kinks.py:{lines[fun.__name__]}"
    both = nsi.kinks(lambda x: first(x) + second(x))(ZERO)
    assert sorted(row.place for row in both.rows) == sorted(f"test_kinks.py:{n}" for n in lines.values())


def clipped(x):
    return jax.jit(lambda x: jnp.clip(x, 0.0, 1.0))(x)


def test_lines_inside_nested_jits_and_loops():
    line = inspect.getsourcelines(clipped)[1] + 1

    def fun(x):
        return lax.scan(lambda c, _: (jax.jit(clipped)(c), None), x, None, length=3)[0]

    report = nsi.kinks(fun)(ZERO)
    assert {row.operation for row in report.rows} == {"maximum", "minimum"}
    assert {row.place for row in report.rows} == {f"test_kinks.py:{line}"}
    assert all(row.shape == (3, 4) and row.size == 12 for row in report.rows)
    assert report.num_active == 12  # of the lower bounds


@pytest.mark.parametrize("row", SMOOTH, ids=[row.name for row in SMOOTH])
def test_what_is_smooth_has_no_kink(row):
    floats = all(np.issubdtype(np.asarray(x).dtype, np.floating) for x in jax.tree.leaves(row.args))
    report = nsi.kinks(row.fun)(*(row.args if row.at_kinks is None or not floats else row.at_kinks))
    assert report.rows == () and report.num_active == 0 and str(report) == "no kinks"


def test_a_maximum_that_logsumexp_stops_is_no_kink():
    assert not [row for row in nsi.kinks(jax.nn.logsumexp)(TIED).rows if row.num_active]


def test_opaque_programs_are_listed():
    report = nsi.kinks(lambda x: jax.nn.softplus(x) + lax.cond(x[0] > 0, jnp.sin, jnp.cos, x) + nsi.relu(x))(ZERO)
    assert {x.name for x in report.opaque} == {"custom_jvp_call", "cond"} and len(report.rows) == 1
    assert [x.has_rule for x in sorted(report.opaque, key=lambda x: x.name)] == [False, True]
    text = str(report)
    assert text.count("kept as it is: ") == 2 and "branches on a comparison" in text and "its own rule" in text
    assert report._repr_html_().count("<li>") == 2


def test_jumps_are_counted():
    report = nsi.kinks(lambda x: jnp.where(x > 0, x + 1, x) + jnp.abs(x))(jnp.array([0.0, 0.0, 1.0]))
    assert (report.num_active, report.num_jumps) == (4, 2) and "2 of them jumps" in str(report)
    assert {row.operation: row.num_jumps for row in report.rows} == {"where": 2, "abs": 0}
    assert "(2 jumps)" in str(report) and "2 jumps" in report._repr_html_()


def test_crowds_are_counted():
    report = nsi.kinks(lambda x: jnp.sort(x) + jnp.max(x))(jnp.zeros(7))
    assert report.num_crowded == 2 and "more than six keys tie in 2 orderings" in str(report)
    assert nsi.kinks(jnp.max)(jnp.arange(7.0)).num_crowded == 0


def test_text_html_and_plain_data():
    report = nsi.kinks(lambda x: nsi.relu(x) * jnp.abs(x + 1))(ZERO)
    lines = str(report).splitlines()
    assert lines[0] == "4 of 8 switches within 1e-08 of a kink" and repr(report) == str(report)
    assert lines[1].split() == ["operation", "where", "shape", "active", "nearest", "relative"]
    assert lines[2].split()[0::2] == ["relu", "4", "0.0e+00"] and len(lines) == 4
    page = report._repr_html_()
    assert page.count("<tr>") == page.count("</tr>") == 3 and "<th>operation</th>" in page
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["num_active"] == 4 and plain["num_jumps"] == 0 and plain["opaque"] == []
    assert plain["rows"][0]["operation"] == "relu" and plain["rows"][0]["size"] == 4
    dark = nsi.kinks(jax.nn.softplus)(ZERO).to_dict()
    assert json.loads(json.dumps(dark))["opaque"][0]["name"] == "custom_jvp_call"


def test_arguments_are_trees_with_integers_and_closures():
    weights = jnp.array([1.0, -1.0])
    report = nsi.kinks(lambda tree, i: jax.nn.relu(weights * tree["x"])[i])({"x": jnp.array([0.0, 1.0]), "n": 3}, 1)
    assert report.num_active == 1
    assert nsi.kinks(jnp.abs)(jnp.float32(0)).tolerance == pytest.approx(3.5e-4, rel=0.02)


def test_an_empty_array_has_no_kink():
    assert str(nsi.kinks(lambda x: nsi.relu(x[:0]).sum() + x)(ZERO)) == "no kinks"


def test_traced_arguments_are_refused():
    with pytest.raises(nsi.InputError, match=r"kinks\(fun\)\(x\)(.|\n)*traced(.|\n)*Try:"):
        jax.jit(lambda x: nsi.kinks(jnp.abs)(x).num_active)(ZERO)
