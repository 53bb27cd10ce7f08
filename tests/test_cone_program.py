"""Cone programs: planted solutions, the homogeneous formula for the derivative, and verdicts that are known."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import prox
from nsimplicit.layers.cone_data import read
from nsimplicit.layers.cone_host import solve_on_host
from tests.cases.cone_program import CONES, FAILED, HARD, HARD_CONES, SMOOTH, N, padded, program, projection

solve = nsi.layers.cone_program
NAMES = ("A", "b", "c", "P")
STEP = 1e-6
LANES = SMOOTH | {name: p for name, (p, _) in FAILED.items()}
COTANGENT = np.array([1.0, -2.0, 0.5, 1.0])


def direction(p):
    """Of change: P is scaled, so that it stays positive semidefinite."""
    return {name: np.cos(np.arange(p[name].size)).reshape(p[name].shape) for name in "Abc"} | {"P": p["P"]}


def everything(A, b, c, P):
    """The solution, the derivative of (x, y, s) along a direction, the gradient of a product with x: one solve."""
    out, push = jax.linearize(lambda A, b, c, P: solve(A, b, c, CONES, P=P), A, b, c, P)

    def moved(*tangents):
        found = push(*tangents)
        return found.value, found.dual, found.slack

    tangents = [*(jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape) for v in (A, b, c)), P]
    pull = jax.linear_transpose(lambda *tangents: moved(*tangents)[0], A, b, c, P)
    return out, moved(*tangents), pull(jnp.asarray(COTANGENT, A.dtype))


@functools.cache
def answers(dtype=np.float64):
    """All programs, and the smooth ones moved to both sides, as lanes of one call."""
    lanes = dict(LANES)
    for sign in (-1, 1):
        for name, p in SMOOTH.items():
            lanes[name, sign] = {key: p[key] + sign * STEP * direction(p)[key] for key in NAMES}
    batch = [np.stack([p[name] for p in lanes.values()]).astype(dtype) for name in NAMES]
    out = jax.tree.map(np.asarray, jax.jit(jax.vmap(everything))(*batch))
    return {name: jax.tree.map(lambda x, i=i: x[i], out) for i, name in enumerate(lanes)}


@pytest.mark.parametrize("name", SMOOTH)
def test_solution(name):
    found, p = answers()[name][0], SMOOTH[name]
    assert isinstance(found, nsi.layers.ConeSolution)
    assert found.status == 1
    assert found.residual <= 1e-14
    for got, expected in ((found.value, p["x"]), (found.dual, p["y"]), (found.slack, p["s"])):
        np.testing.assert_allclose(got, expected, atol=1e-12 * (1 + np.abs(expected).max()))


def homogeneous(p, d):
    """The derivative of (x, y, s) along d by the residual map of the self-dual embedding (P = 0).

    Its Jacobian M has the right kernel z and the left kernel Pi(z): M + Pi(z) z' is invertible, and gives the dz
    with z'dz = 0, of which the scale of the embedding is then divided out.
    """
    x, y, s, (A, b, c) = p["x"], p["y"], p["s"], (p[name] for name in "Abc")

    def skew(A, b, c):
        zero = [np.zeros((len(v), len(v))) for v in (c, b)]
        return np.block([[zero[0], A.T, c[:, None]], [-A, zero[1], b[:, None]], [-c[None], -b[None], np.zeros((1, 1))]])

    D = np.eye(len(c) + len(b) + 1)
    D[len(c) : -1, len(c) : -1] -= projection(s - y)[1]
    z, onto = np.concatenate([x, y - s, [1]]), np.concatenate([x, y, [1]])
    eye = np.eye(len(z))
    M = (skew(A, b, c) - eye) @ D + eye
    np.testing.assert_allclose(M @ z, 0, atol=1e-9)
    np.testing.assert_allclose(onto @ M, 0, atol=1e-9)
    dz = np.linalg.solve(M + np.outer(onto, z), -skew(d["A"], d["b"], d["c"]) @ onto)
    du, dv, dw = dz[: len(c)], dz[len(c) : -1], dz[-1]
    dy = dv - projection(s - y)[1] @ dv
    return du - x * dw, dy - y * dw, dy - dv - s * dw


@pytest.mark.parametrize("name", ["vertex", "on curves"])
def test_derivative_is_that_of_the_embedding(name):
    p = SMOOTH[name]
    for got, expected in zip(answers()[name][1], homogeneous(p, direction(p)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-9 * (1 + np.abs(expected).max()))


# Of x along `direction`, and the gradient in b, by diffcp 1.1.9 (mode "dense") with SCS 3.3.1 at 1e-12.
DIFFCP = {
    "vertex": (
        [2.929551611, 0.239735147, -1.119210465, 4.568384692],
        [
            -0.777419916,
            2.583302422,
            0,
            0,
            -1.078979192,
            0.288317872,
            1.039744632,
            -0.504161738,
            1.632173331,
            -2.641999162,
        ],
    ),
    "on curves": (
        [-1.890442694, -2.875267070, -1.630147929, 0.621777232],
        [0.760622666, 0, 0, 0, 1.544163417, -0.991508766, 1.183800422, 0.000184473, 0.043319292, 0.716388981],
    ),
}


@pytest.mark.parametrize("name", DIFFCP)
def test_derivatives_are_those_of_diffcp(name):
    _, moved, gradient = answers()[name]
    forward, backward = DIFFCP[name]
    np.testing.assert_allclose(moved[0], forward, atol=1e-8)
    np.testing.assert_allclose(gradient[1], backward, atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivative_by_differences(name):
    ends = [answers()[name, sign][0] for sign in (-1, 1)]
    assert all(end.status == 1 for end in ends)
    for got, key in zip(answers()[name][1], ("value", "dual", "slack"), strict=True):
        low, high = (getattr(end, key) for end in ends)
        scale = 1 + np.abs(got).max() + np.abs(low).max()
        np.testing.assert_allclose(got, (high - low) / (2 * STEP), atol=1e-6 * scale)


@pytest.mark.parametrize("name", SMOOTH)
def test_both_modes_agree(name):
    _, moved, gradient = answers()[name]
    pulled = sum((g * d).sum() for g, d in zip(gradient, map(direction(SMOOTH[name]).get, NAMES), strict=True))
    np.testing.assert_allclose(pulled, COTANGENT @ moved[0], rtol=1e-8)


@pytest.mark.parametrize("name", FAILED)
def test_status(name):
    found, moved, gradient = answers()[name]
    p, status = FAILED[name]
    assert found.status == status
    assert not found.converged
    assert np.isnan(found.value).all()
    assert np.isnan(moved[0]).all()
    assert np.isnan(gradient[2]).all()
    if status == -1:
        np.testing.assert_allclose(p["b"] @ found.infeasible, -1)
        np.testing.assert_allclose(p["A"].T @ found.infeasible, 0, atol=1e-7)
        assert (found.infeasible[1:4] >= 0).all()
    else:
        assert np.isnan(found.infeasible).all()
    if status == -2:
        np.testing.assert_allclose(p["c"] @ found.unbounded, -1)
        np.testing.assert_allclose(p["A"] @ found.unbounded, 0, atol=1e-7)
    else:
        assert np.isnan(found.unbounded).all()


@pytest.mark.slow
def test_hard_programs():
    batch = map(np.stack, zip(*(padded(parts, c) for parts, c, _ in HARD.values()), strict=True))
    found = jax.jit(jax.vmap(lambda A, b, c: solve(A, b, c, HARD_CONES, max_steps=1000)))(*batch)
    wrong = {
        name: code
        for (name, (_, _, right)), code in zip(HARD.items(), found.status.tolist(), strict=True)
        if code not in right
    }
    assert not wrong
    np.testing.assert_allclose(found.value[:4], [[1, 0], [-1, 0], [1, 0], [0, 0]], atol=1e-7)


@pytest.mark.slow
def test_single_precision():
    for name, p in SMOOTH.items():
        found, moved, _ = answers(np.float32)[name]
        assert found.status == 1, name
        assert found.value.dtype == moved[0].dtype == np.float32
        np.testing.assert_allclose(found.value, p["x"], atol=2e-3, err_msg=name)
        np.testing.assert_allclose(moved[0], answers()[name][1][0], atol=2e-2, err_msg=name)
    for name, (_, status) in FAILED.items():
        assert answers(np.float32)[name][0].status == status, name


@pytest.mark.slow
def test_exponential_cones():
    def best(k, a):
        """Of min t - k u + w: t >= exp(u), and (-1, a, w) in the dual cone, w >= exp(-a - 1)."""
        A = -jnp.eye(6)[:, jnp.array([0, 2, 5])]
        b = jnp.array([0.0, 1.0, 0.0, -1.0, 0.0, 0.0]).at[4].set(a)
        return solve(A, b, jnp.array([-k, 1.0, 1.0]), {"ep": 1, "ed": 1}).value

    value, moved = jax.jit(lambda k, a: jax.jvp(best, (k, a), (1.0, 1.0)))(3.0, 0.5)
    np.testing.assert_allclose(value, [np.log(3), 3, np.exp(-1.5)], rtol=1e-9)
    np.testing.assert_allclose(moved, [1 / 3, 1, -np.exp(-1.5)], rtol=1e-9)


@pytest.mark.slow
def test_power_cones_and_their_exponents():
    def best(a):
        """Of max z + w: x + y = 1, x^a y^(1-a) >= z; u + v = 1, (u, v, w) in the dual cone."""
        A = jnp.concatenate([jnp.kron(jnp.eye(2), jnp.array([[1.0, 1.0, 0.0]])), -jnp.eye(6)])
        cones = [(prox.ZeroCone(), 2), (prox.PowerCone(a), 3), (prox.DualPowerCone(a), 3)]
        return solve(A, jnp.zeros(8).at[:2].set(1.0), jnp.array([0.0, 0, -1, 0, 0, -1]), cones).value

    a = 0.3
    value, moved = jax.jit(lambda a: jax.jvp(best, (a,), (1.0,)))(a)
    mean = a**a * (1 - a) ** (1 - a)
    np.testing.assert_allclose(value, [a, 1 - a, mean, a, 1 - a, 1], rtol=1e-9)
    np.testing.assert_allclose(moved, [1, -1, mean * np.log(a / (1 - a)), 1, -1, 0], atol=1e-9)


# --- kinks: min ½ x² - p x, x >= 0, at p = 0


def test_selection_and_no_derivative():
    def best(p, curvature):
        """Four such programs side by side, moved by a number that is rounded; the last has the default."""
        cones = [(prox.Nonnegative(selection=s), 1) for s in ("inside", "outside", 0.25, None)]
        A, x = jnp.diag(jnp.array([-3.0, -0.7, -1.0, -1.0])), curvature * 0.1
        return solve(A, A @ x + 1 - curvature, -p - x, cones, P=jnp.diag(curvature)).value

    slopes = jax.vmap(lambda curvature: jax.jvp(lambda p: best(p, curvature), (jnp.zeros(4),), (jnp.ones(4),))[1])
    found = slopes(jnp.array([[1.0, 1, 1, 1], [1, 1, 1, 0]]))
    np.testing.assert_allclose(found[0], [1, 0, 0.25, 0.5], atol=1e-12)
    assert np.isnan(found[1]).all()  # every x[3] >= -1 is a solution


@pytest.mark.parametrize(("curvature", "verdict"), [(1.0, "regular"), (0.0, "singular")])
def test_certify(curvature, verdict):
    found = nsi.certify(solve)(-jnp.eye(1), jnp.zeros(1), jnp.zeros(1), {"l": 1}, P=curvature * jnp.eye(1))
    assert found.verdict == verdict


def test_what_is_not_solved_has_no_derivative():
    drop = nsi.derivatives.Implicit(guard=nsi.guards.Solved(on_failure="drop"))

    def best(p):
        found = solve(-jnp.eye(2), jnp.zeros(2), -p, {"l": 2}, P=jnp.eye(2), derivative=drop, tol=-1.0, max_steps=60)
        return found.value.sum(), found

    gradient, found = jax.grad(best, has_aux=True)(jnp.array([1.0, -1.0]))
    assert found.status == 0
    np.testing.assert_allclose(found.value, [1, 0], atol=1e-9)
    np.testing.assert_array_equal(gradient, 0)


# --- solvers on the host

PLANTED = program(0)


NAN = np.full(10, np.nan)
# [[x0, 1], [1, 0]] is positive semidefinite in the limit of a large x0.
LIMIT = {"A": -np.eye(10)[:, [7, 0, 0, 0]] * np.array([1, 0, 0, 0]), "P": np.diag([0.0, 1, 1, 1]), "c": np.zeros(4)}
LIMIT["b"] = np.array([0, 1, 1, 1, 1, 0, 0, 0, np.sqrt(2), 0])
FAR = np.array([1e10, 0, 0, 0])
HOST = {
    "exact": (PLANTED, [PLANTED[k] for k in "xys"], 1),
    "rough": (PLANTED, [PLANTED[k] + 1e-4 for k in "xys"], 1),
    "wrong": (PLANTED, (np.zeros(N), np.ones(10), np.ones(10) * 1e9), 0),
    "far away": (LIMIT, (FAR, np.zeros(10), LIMIT["b"] - LIMIT["A"] @ FAR), 0),
    "a proof": (FAILED["infeasible"][0], (NAN[:N], np.array([1, 1] + 8 * [0.0]), NAN), -1),
    "no proof": (PLANTED, (NAN[:N], np.ones(10), NAN), 0),
    "a ray": (FAILED["unbounded"][0], (-FAILED["unbounded"][0]["c"], NAN, np.zeros(10)), -2),
}
ANSWER = []


def host_solver(A, b, c, P, cones):
    return ANSWER[-1]


@pytest.mark.parametrize("name", HOST)
def test_answers_from_the_host_are_checked(name):
    p, given, status = HOST[name]
    ANSWER.append(given)
    found = solve(p["A"], p["b"], p["c"], CONES, P=p["P"], solver=host_solver)
    assert found.status == status
    if status == 1:
        np.testing.assert_allclose(found.value, p["x"], rtol=1e-12)
    if status == -1:
        np.testing.assert_allclose(found.infeasible, np.array(given[1]) / 2)


def test_a_host_solver_sees_the_form_of_scs():
    seen = {}

    def solver(A, b, c, P, cones):
        seen.update(A=A, b=b, cones=cones)
        return np.zeros(2), 2 * b, b

    A, b = np.arange(18.0).reshape(9, 2), np.arange(9.0)
    cones = [(prox.SecondOrderCone(), 3), (prox.PowerCone(0.25), 3), (prox.Nonnegative(), 2), (prox.ZeroCone(), 1)]
    _, y, s = solve_on_host(solver, read(A, b, np.zeros(2), cones, None))
    np.testing.assert_array_equal(seen["b"], [8, 6, 7, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(seen["A"], A[[8, 6, 7, 0, 1, 2, 3, 4, 5]])
    assert seen["cones"] == {"z": 1, "l": 2, "q": [3], "p": [0.25]}
    np.testing.assert_array_equal(y, 2 * b)
    np.testing.assert_array_equal(s, b)


# --- what is compiled, and what is read

EYE, ONES = jnp.eye(2), jnp.ones(2)


def test_gradients_lower_everywhere_and_no_array_has_an_entry_for_every_step():
    def loss(A, b, c):
        return solve(A, b, c, CONES, max_steps=1_234_567).value.sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 10, 4), (3, 10), (3, 4))]
    exported = jax.export.export(jax.jit(jax.vmap(jax.grad(loss))), platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.out_avals[0].shape == (3, 10, 4)
    text = exported.mlir_module()
    assert "1234567" in text
    assert "1234567x" not in text
    products = [line for line in text.splitlines() if "= stablehlo.dot_general" in line]
    assert products
    assert not [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line]


def test_no_rows_and_no_cones():
    found = solve(jnp.zeros((0, 2)), jnp.zeros(0), jnp.array([1.0, -2.0]), [], P=2 * jnp.eye(2))
    np.testing.assert_allclose(found.value, [-0.5, 1.0], rtol=1e-12)
    assert read(jnp.eye(2), ONES, ONES, {"z": 0, "q": [], "l": 2}, None).cones.blocks[0].rows == 2


def test_sizes_in_the_form_of_scs():
    sizes = {"f": 1, "l": 2, "q": [3, 3, 1], "s": [1, 2], "ep": 2, "ed": 1, "p": [0.3, 0.6, -0.5]}
    m = 1 + 2 + 7 + 1 + 3 + 6 + 3 + 9
    blocks = read(jnp.ones((m, 2)), jnp.ones(m), jnp.ones(2), sizes, None).cones.blocks
    assert [(type(block.cone).__name__, block.size, block.count) for block in blocks] == [
        ("ZeroCone", 1, 1),
        ("Nonnegative", 2, 1),
        ("SecondOrderCone", 3, 2),
        ("Nonnegative", 1, 1),  # a length of nothing
        ("PSDCone", 1, 1),
        ("PSDCone", 3, 1),
        ("ExponentialCone", 3, 2),
        ("DualExponentialCone", 3, 1),
        ("PowerCone", 3, 2),
        ("DualPowerCone", 3, 1),
    ]
    np.testing.assert_array_equal(blocks[-2].cone.alpha, [0.3, 0.6])
    np.testing.assert_array_equal(blocks[-1].cone.alpha, [0.5])


SOC, PSD = prox.SecondOrderCone(), prox.PSDCone()
MISTAKES = {
    "rows of b": (lambda: solve(EYE, jnp.ones(3), ONES, {"l": 2}), r"b has shape \(3,\)"),
    "a batch": (lambda: solve(jnp.ones((4, 2, 2)), ONES, ONES, {"l": 2}), "jax.vmap"),
    "no variable": (lambda: solve(jnp.ones((2, 0)), ONES, jnp.ones(0), {"l": 2}), "at least one variable"),
    "rows of cones": (lambda: solve(EYE, ONES, ONES, {"l": 3}), "A has 2 rows, the cones have 3: Nonnegative 3"),
    "a key": (lambda: solve(EYE, ONES, ONES, {"nonneg": 2}), "has the key 'nonneg'"),
    "a size": (lambda: solve(EYE, ONES, ONES, {"l": -2}), r"cones\['l'\] is -2"),
    "no cones": (lambda: solve(EYE, ONES, ONES, 2), "cones is a int"),
    "no pair": (lambda: solve(EYE, ONES, ONES, [SOC]), "has the entry"),
    "no cone": (lambda: solve(EYE, ONES, ONES, [(prox.L2Ball(1.0), 2)]), "L2Ball is not a cone"),
    "half a row": (lambda: solve(EYE, ONES, ONES, [(SOC, 1.5)]), "has 1.5 rows"),
    "no triangle": (lambda: solve(EYE, ONES, ONES, [(PSD, 2)]), "PSDCone has 2 rows"),
    "no triple": (lambda: solve(EYE, ONES, ONES, [(prox.ExponentialCone(), 2)]), "not a multiple of 3"),
    "nan": (lambda: solve(EYE, jnp.array([0, jnp.nan]), ONES, {"l": 2}), r"b\[1\] is nan"),
    "P": (lambda: solve(EYE, ONES, ONES, {"l": 2}, P=jnp.eye(3)), r"P has shape \(3, 3\)"),
    "a negative eigenvalue": (lambda: solve(EYE, ONES, ONES, {"l": 2}, P=-EYE), "smallest eigenvalue of P is -1"),
    "complex": (lambda: solve(EYE * 1j, ONES, ONES, {"l": 2}), "over the reals"),
    "a solver": (lambda: solve(EYE, ONES, ONES, {"l": 2}, solver="mosek"), "'mosek' is not one of scs, clarabel"),
    "not in scs": (lambda: solve(EYE, ONES, ONES, [(prox.FreeCone(), 2)], solver="scs"), "FreeCone has no name"),
    "not in clarabel": (
        lambda: solve(jnp.ones((3, 1)), jnp.ones(3), jnp.ones(1), {"ed": 1}, solver="clarabel"),
        "dual",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    call, expected = MISTAKES[name]
    with pytest.raises(nsi.InputError, match=re.compile(expected)):
        call()
