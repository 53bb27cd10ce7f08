"""`compare` and `history`: what they print is what the modes and the iterations do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.compare import MODES, RATE, halve, solve

IMPLICIT, NEUMANN = nsi.derivatives.Implicit(), nsi.derivatives.Neumann(5)
PIGGYBACK, ONE_STEP = nsi.derivatives.Piggyback(), nsi.derivatives.OneStep()
ROUNDING = 1e-14  # a few operations on numbers of order 1


@pytest.fixture(scope="module")
def table():
    return nsi.compare(solve, 3.0, derivatives=[d for d, _, _ in MODES.values()], repeats=2)


@pytest.mark.parametrize("name", MODES)
def test_rows_know_each_mode(table, name):
    _, mode, error = MODES[name]
    (row,) = [row for row in table.rows if row["name"] == name]
    steps = 10 if name.startswith("Unrolled") else 60
    assert row["mode"] == mode and row["refused"] == ""
    np.testing.assert_allclose(row["error"], error, atol=ROUNDING)
    np.testing.assert_allclose(row["derivative"], 2 * (1 - error), rtol=ROUNDING)
    np.testing.assert_allclose(row["value"], 6.0 * (1 - RATE**steps), rtol=ROUNDING)
    assert row["warm_ms"] > 0 and row["spread_ms"] >= 0 and row["compile_ms"] > 0


def test_it_prints_as_a_table(table):
    lines = str(table).splitlines()
    assert lines[0].split("  ")[0] == "derivative" and set(lines[1]) == {"-", " "}
    assert [line.split("  ")[0] for line in lines[2:]] == list(MODES)
    assert lines[0].index("error") == lines[2].index("0.0e+00")


@pytest.mark.parametrize(("argnums", "derivative"), [(0, IMPLICIT), (1, PIGGYBACK), ((0, 1), IMPLICIT), (-1, IMPLICIT)])
def test_jacobians_of_arrays(argnums, derivative):
    A = jnp.array([[0.2, 0.5, 0.0], [-0.3, 0.1, 0.2], [0.0, 0.4, 0.3]])  # not symmetric
    B = jnp.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 3.0]])

    def fun(b, c, derivative):
        return nsi.fixed_point(lambda z, b, c: A @ z + B @ b + c["c"], jnp.zeros(3), b, c, derivative=derivative).value

    inverse = np.linalg.inv(np.eye(3) - A)
    columns = [inverse @ B, {"c": inverse}]
    truth = (columns[0], columns[1]) if argnums == (0, 1) else columns[argnums]
    arguments = (jnp.array([1.0, -2.0]), {"c": jnp.ones(3)})
    found = nsi.compare(fun, *arguments, derivatives=[derivative], argnums=argnums, reference=truth, repeats=2)
    # Solved to 3.7e-11; the map is linear, so the implicit derivative does not depend on it and piggyback stops there.
    assert found.rows[0]["error"] < (1e-9 if derivative is PIGGYBACK else ROUNDING)
    assert jax.tree.structure(found.rows[0]["derivative"]) == jax.tree.structure(truth)
    assert "norm" in str(found)


def test_a_number_that_is_not_the_first_argument():
    (row,) = nsi.compare(
        lambda b, t, derivative: b * solve(t, derivative), 5.0, 3.0, derivatives=[PIGGYBACK], argnums=1, repeats=2
    ).rows
    np.testing.assert_allclose(row["derivative"], 10, rtol=ROUNDING)


def test_names_of_a_mapping_are_kept():
    table = nsi.compare(solve, 1.0, derivatives={"exact": IMPLICIT, "cheap": ONE_STEP}, repeats=2)
    assert [row["name"] for row in table.rows] == ["exact", "cheap"]


def test_the_reference_of_float32_is_float64():
    def power(t, derivative):
        return nsi.fixed_point(lambda z, t: jnp.cos(z) * t, jnp.ones_like(t), t, derivative=derivative).value

    with jax.enable_x64(False):
        (row,) = nsi.compare(power, jnp.float32(0.7), derivatives=[IMPLICIT], repeats=2).rows
    assert row["derivative"].dtype == np.float32
    assert 1e-10 < row["error"] < 1e-4  # the solution stops at 2.4e-5; an error against itself would be 0


def test_memory_is_that_of_the_compiled_program():
    def fun(w, derivative):
        return jnp.sum(
            nsi.fixed_point(lambda z, w: jnp.tanh(w * z + 1), jnp.zeros(1000), w, derivative=derivative).value
        )

    modes = {k: nsi.derivatives.Unrolled(k) for k in (20, 200)} | {"implicit": nsi.derivatives.Neumann(200)}
    memory = {row["name"]: row["temporary_mb"] for row in nsi.compare(fun, 0.5, derivatives=modes, repeats=2).rows}
    stored = 1000 * 8 / 1e6  # one state, at least, for each step
    assert memory[200] > 200 * stored and memory[200] > 5 * memory[20] > 50 * stored
    assert memory["implicit"] < 20 * stored


def test_a_mode_that_refuses_is_a_row():
    def fun(a, derivative):
        return nsi.root(lambda z, a: z**3 + z - a, 1.0, a, derivative=derivative).value

    table = nsi.compare(fun, 2.0, derivatives=[NEUMANN, IMPLICIT], repeats=2)
    assert "contraction" in table.rows[0]["refused"] and table.rows[1]["refused"] == ""
    assert (
        str(table).splitlines()[-1 - table.rows[0]["refused"].count("\n")].startswith("Neumann(k=5)  refused: `root(")
    )
    np.testing.assert_allclose(table.rows[1]["derivative"], 0.25, rtol=1e-9)  # 1 / (3 z^2 + 1) at z = 1


def test_compare_says_what_is_wrong():
    with pytest.raises(nsi.InputError, match="of type int"):
        nsi.compare(solve, 1, derivatives=[IMPLICIT])
    with pytest.raises(nsi.InputError, match=r"leaves of \[1\] numbers, the reference of \[2\]"):
        nsi.compare(solve, 1.0, derivatives=[IMPLICIT], reference=np.ones(2), repeats=2)


def test_history_of_a_geometric_series():
    seen = nsi.history(halve, 0.0, 3.0, steps=70)
    left = RATE ** np.arange(71)
    np.testing.assert_allclose(seen.z, 6 * (1 - left), rtol=ROUNDING)
    np.testing.assert_allclose(seen.dz, 2 * (1 - left), rtol=ROUNDING)
    np.testing.assert_allclose([seen.z_limit, seen.dz_limit], [6, 2], rtol=ROUNDING)
    np.testing.assert_allclose(seen.error, 6 * left, atol=6 * ROUNDING)
    np.testing.assert_allclose(seen.derivative_error, 2 * left, atol=6 * ROUNDING)
    np.testing.assert_allclose(seen.rates(), RATE, rtol=1e-6)  # rounding errors of 1e-16 next to errors of 1e-10
    short = nsi.history(halve, 0.0, 3.0, steps=10)
    assert np.isnan(short.rates()).all()
    np.testing.assert_allclose([short.z_limit, short.dz_limit], [6, 2], rtol=ROUNDING)


X = jnp.array([[1.0, 0.3, -0.2], [0.1, -1.2, 0.7], [0.5, 0.4, 1.1], [-0.9, 0.2, 0.3]])
Y = jnp.array([1.0, -2.0, 0.3, 0.5])


def forward_backward(weight):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(X, Y), nsi.prox.L1(weight), 0.4)


def douglas_rachford(weight):
    return nsi.splittings.DouglasRachford(nsi.prox.LeastSquares(X, Y), nsi.prox.L1(weight), 0.6)


@pytest.mark.parametrize(
    ("make", "solver"),
    [(forward_backward, nsi.solvers.Picard()), (douglas_rachford, nsi.solvers.Anderson())],
    ids=["forward_backward-Picard", "douglas_rachford-Anderson"],
)
def test_history_is_that_of_the_unrolled_solver(make, solver):
    mode = nsi.derivatives.Unrolled(9)
    z, dz = jax.jvp(lambda w: nsi.fixed_point(make(w), jnp.ones(3), solver=solver, derivative=mode).z, (0.6,), (1.0,))
    T, tangents = jax.jvp(make, (0.6,), (1.0,))
    seen = nsi.history(T, jnp.ones(3), tangents=tangents, steps=60, solver=solver)
    # Anderson solves a least-squares problem, which magnifies the rounding of another order of operations.
    np.testing.assert_allclose(seen.z[9], z, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(seen.dz[9], dz, rtol=1e-9, atol=1e-9)

    beta, slope = jax.jvp(lambda w, z: make(w).solution(z), (0.6, seen.z_limit), (1.0, seen.dz_limit))
    support = np.flatnonzero(beta)
    assert 0 < len(support) < 3
    gram = X[:, support].T @ X[:, support]
    closed = np.zeros(3)
    closed[support] = -np.linalg.solve(gram, np.sign(beta[support]))
    np.testing.assert_allclose(slope, closed, atol=1e-12)  # condition below 100
    assert seen.error[-1] < 1e-8 and seen.derivative_error[-1] < 1e-6


def test_a_kink_on_the_way_keeps_the_derivative_from_converging():
    def F(x, t):  # Bolte, Pauwels, Vaiter 2022: iterates from 1 change sides for ever, at t = 0
        return t - x * jnp.where(x >= 0, 0.5, 0.25)

    seen = nsi.history(F, 1.0, 0.0, steps=60)
    assert seen.error[-1] < 1e-25
    np.testing.assert_allclose(seen.dz[20:22], [6 / 7, 4 / 7], rtol=1e-6)  # 8^-10 is left of the start
    np.testing.assert_allclose(seen.dz[-2:], [4 / 7, 6 / 7], rtol=1e-12)
    # The limit is 0, or what is left of it on either side.
    assert min(abs(float(seen.dz_limit) - slope) for slope in (2 / 3, 4 / 5)) < ROUNDING
    assert seen.derivative_error[-2:].min() > 0.05


def test_history_of_trees():
    def T(z, p, shift):
        return {"a": 0.5 * z["a"] + p["w"] * z["b"], "b": jnp.tanh(z["b"]) * 0.5 + shift}

    p, shift = {"w": jnp.array([0.3, -0.2])}, jnp.array([1.0, 2.0])
    z0 = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    tangents = ({"w": jnp.ones(2)}, jnp.array([0.5, 0.0]))
    seen = nsi.history(T, z0, p, shift, tangents=tangents, steps=80)
    assert seen.z["a"].shape == (81, 2) and seen.error.shape == (81,)
    solve = jax.jit(lambda *args: nsi.fixed_point(T, z0, *args, tol=1e-14).value)
    h = 1e-6
    ahead, behind = (solve({"w": p["w"] + s}, shift + s * tangents[1]) for s in (h, -h))
    slope = jax.tree.map(lambda x, y: (x - y) / (2 * h), ahead, behind)
    for name in z0:  # rounding 1e-14 / h and h^2
        np.testing.assert_allclose(seen.dz_limit[name], slope[name], rtol=1e-7)
        np.testing.assert_allclose(seen.dz[name][-1], slope[name], rtol=1e-7)


def test_the_limit_of_16_bits_is_solved_for_in_32():
    seen = nsi.history(lambda z, t: jnp.tanh(z) + t, jnp.bfloat16(0.5), jnp.bfloat16(0.01), steps=20)
    assert seen.dz.dtype == seen.dz_limit.dtype == jnp.bfloat16
    assert 0.8 < seen.rates()[0] < 0.95
    slope = 1 / np.tanh(float(seen.z_limit)) ** 2  # about 12, from 1 - T' about 0.08: in 16 bits 10% off
    assert float(seen.dz_limit) == pytest.approx(slope, rel=2**-8)


def test_history_asks_for_a_direction():
    with pytest.raises(nsi.InputError, match=r"2 leaves, 3 numbers(.|\n)*tangents=\(\.\.\.\)"):
        nsi.history(lambda z, a, b: z / 2 + a + jnp.sum(b), 0.0, 1.0, jnp.ones(2))
    with pytest.raises(nsi.InputError, match=r"T, tangents = jax.jvp\(make"):
        nsi.history(forward_backward(0.6), jnp.ones(3))
