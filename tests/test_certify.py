"""``certify``: the known cases, both verdicts against brute force, and everything that has to stay undecided."""

import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.special import logsumexp
from sklearn.linear_model import lars_path

import nsimplicit as nsi
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.calculus.selected import jacobians
from nsimplicit.certificates import monotone_bound
from nsimplicit.certificates.verdict import judge
from tests import by_hand

EPS = np.finfo(np.float64).eps
GOLDEN = (3 - 5**0.5) / 2


def corners(k):
    return np.array(list(itertools.product((0.0, 1.0), repeat=k))).reshape(-1, k)


# Brute force: small programs read off by hand, every selection of a fine grid.


def grid(k):
    return np.array(list(itertools.product(np.linspace(0, 1, {0: 2, 1: 401, 2: 41, 3: 13}.get(k, 7)), repeat=k)))


@pytest.mark.parametrize("widths", [(1,), (2,), (1, 1), (3,), (2, 1), (2, 2), (1, 1, 1)], ids=str)
def test_no_grid_contradicts_a_verdict(widths):
    seen = {1: 0, 0: 0, -1: 0}
    for seed in range(60):
        form = by_hand.normal_form(by_hand.random_program(seed, 3, 3, widths, [0.3, 1.0, 4.0][seed % 3]), 3)
        found, k = judge(form, eps=EPS), form.num_kinks
        code = int(found.code)
        seen[code] += 1
        assert found.num_kinks == k and found.names == form.names
        matrices = jacobians(form, grid(k))
        sigma, det = np.linalg.svd(matrices, compute_uv=False)[:, -1], np.linalg.det(matrices)
        vertices = np.linalg.svd(jacobians(form, corners(k)), compute_uv=False)[:, -1].min()
        if code == 1:
            assert det.min() * det.max() > 0 and 0 < found.margin <= 1 and np.isnan(found.witness).all()
            # The least singular value over the box is at a vertex, and it is what is reported.
            np.testing.assert_allclose(found.sigma_min, vertices, rtol=1e-12)
            assert found.bound == "exact" and sigma.min() >= vertices * (1 - 1e-12)
        elif code == -1:
            assert found.sigma_min == 0 and np.all((found.witness >= 0) & (found.witness <= 1))
            values = np.linalg.svd(jacobians(form, found.witness), compute_uv=False)
            assert values[-1] <= 1e-13 * values[0]
        else:
            assert found.reason
    assert seen[1] > 8 and seen[-1] > 8 and seen[0] == 0


def test_a_regular_clarke_jacobian_has_no_singular_matrix_in_its_hull():
    """Of two kinks, one inside the other, all selections may be regular and a mean of them singular."""
    rng, seen = np.random.default_rng(0), []
    for seed in range(1000):
        form = by_hand.normal_form(by_hand.random_program(seed, 2, 2, (1, 1), 6.0), 2)
        found = judge(form, eps=EPS)
        if int(found.code) != 1:
            continue
        hull = np.einsum("wv,vij->wij", rng.dirichlet(np.full(4, 0.3), 300), jacobians(form, corners(2)))
        crosses = np.linalg.det(hull).min() * np.linalg.det(hull).max() < 0
        seen.append((int(found.clarke), bool(crosses)))
        assert not (found.clarke == 1 and crosses)
    assert {(1, False), (0, True)} <= set(seen)


def test_kinks_that_change_nothing_are_dropped():
    form = by_hand.normal_form(lambda ops, x, y: [ops.abs(x) + y, 2 * x + ops.abs(y) + 0 * ops.relu(x - y)], 2)
    idle = by_hand.normal_form(lambda ops, x, y: [ops.abs(x) + y, 2 * x + ops.abs(y + ops.abs(0 * x))], 2)
    for each in (form, idle):
        found = judge(each, eps=EPS)
        assert found.num_kinks == 2 and len(found.names) == 2
        np.testing.assert_allclose(found.sigma_min, GOLDEN, rtol=1e-14)


def test_an_argument_that_never_changes_sign_refutes_nothing():
    """switch(x², -x, x) is -x everywhere: halfway lies 0, which is no derivative of the function."""
    z = jnp.zeros(1)
    found = nsi.certify(lambda z: nsi.switch(z**2, -z, z))(z)
    assert found.verdict == "singular" and found.witness == 0.5 and found.clarke == 0


# Known equations.


def clarke(z, w):
    return jnp.stack([jnp.abs(z[0]) + z[1], 2 * z[0] + jnp.abs(z[1])]) - w


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 1e-14), (jnp.float32, 1e-6)], ids=["float64", "float32"])
def test_clarkes_map_is_regular(dtype, rtol):
    found = nsi.certify(clarke)(jnp.zeros(2, dtype), jnp.zeros(2, dtype))
    assert (found.verdict, found.bound, found.num_kinks, found.clarke) == ("regular", "exact", 2, 1)
    np.testing.assert_allclose(found.sigma_min, GOLDEN, rtol=rtol)


def test_tanh_in_disguise_is_singular_as_a_program_and_regular_as_a_function():
    def equation(z, x):
        return x - (jnp.tanh(z) + jax.nn.relu(-z) + z - jax.nn.relu(z))

    found = nsi.certify(equation)(0.0, 0.0)
    assert found.verdict == "singular" and found.clarke == 1
    s = found.witness  # relu(-z) is 0 below; the derivative of the program is -(1 - s_0 + 1 - s_1)
    assert 1 - s[0] + 1 - s[1] == 0
    text = str(found)
    assert "certificate: singular" in text and "the Clarke Jacobian of the function is regular" in text
    assert "never occur together" in text and "Along" in text
    assert nsi.certify(equation)(0.1, jnp.tanh(0.1)).verdict == "regular"


BOX = jnp.array([3.0, 5.0])


def cyclic(s, xy, gamma):
    h = -3 * xy[0] + xy[1] + 2
    return s - jnp.clip(s + gamma * h, 0.0, BOX)


@pytest.mark.parametrize("s", [(3.0, 5.0), (0.0, 0.0), (0.0, 5.0), (3.0, 2.0), (1.0, 2.0)], ids=str)
def test_cyclic_dynamics_on_the_line(s):
    s, on = jnp.array(s), jnp.array([1.0, 1.0])
    found = nsi.certify(cyclic)(s, on, 0.7)
    assert found.verdict == "singular" and found.clarke == -1 and found.sigma_min == 0
    at_vertex = bool(jnp.all((s == 0) | (s == BOX)))
    if at_vertex:  # what JAX computes with looks fine
        np.testing.assert_allclose(jnp.linalg.det(jax.jacobian(cyclic)(s, on, 0.7)), 0.25)
        assert found.num_kinks == 2


def test_cyclic_dynamics_off_the_line():
    found = nsi.certify(cyclic)(BOX, jnp.array([1.0, 1.5]), 0.7)
    assert (found.verdict, found.num_kinks, float(found.sigma_min)) == ("regular", 0, 1.0)


# The Lasso: regular if and only if the columns that correlate most are independent, whatever the step.


def lars_knot(seed, knot=2, rows=6, columns=9, duplicate=False):
    """A Lasso at which a coefficient is about to enter, by bisection on the weight, and its equicorrelation set."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    weights, _, path = lars_path(A, b, method="lasso")
    weights *= rows  # scikit-learn divides by it
    if duplicate:  # of the column that enters
        enters = np.flatnonzero((path[:, knot + 1] != 0) & (path[:, knot] == 0))[0]
        A = np.column_stack([A, A[:, enters]])

    def solve(weight, support, signs):
        x = np.zeros(A.shape[1])
        x[support] = np.linalg.solve(A[:, support].T @ A[:, support], A[:, support].T @ b - weight * signs)
        return x

    support = np.flatnonzero(path[:, knot])
    low, high = weights[knot + 1], weights[knot - 1]
    signs = np.sign(A[:, support].T @ (b - A[:, support] @ path[support, knot]))
    others = np.setdiff1d(np.arange(A.shape[1]), support)
    for _ in range(200):  # where another correlation reaches the weight
        weight = (low + high) / 2
        slack = weight - np.abs(A[:, others].T @ (b - A @ solve(weight, support, signs))).max()
        low, high = (low, weight) if slack > 0 else (weight, high)
    x = solve(high, support, signs)
    tied = np.abs(A.T @ (b - A @ x)) >= high * (1 - 1e-12)
    return A, b, high, x, tied


def plain(step):
    return lambda x, A, b, weight: x - nsi.soft_threshold(x - step * A.T @ (A @ x - b), step * weight)


def lasso_splitting(kind, A, b, weight, step):
    f, g = nsi.prox.LeastSquares(jnp.asarray(A), jnp.asarray(b)), nsi.prox.L1(weight)
    return getattr(nsi.splittings, kind)(f, g, step)


LASSOS = {
    "plain, short step": lambda A, b, w, x: nsi.certify(plain(0.05))(x, A, b, w),
    "plain, long step": lambda A, b, w, x: nsi.certify(plain(30.0))(x, A, b, w),
    "ForwardBackward": lambda A, b, w, x: nsi.certify(lasso_splitting("ForwardBackward", A, b, w, 0.01))(x),
    "DouglasRachford": lambda A, b, w, x: nsi.certify(lasso_splitting("DouglasRachford", A, b, w, 0.3))(
        x - 0.3 * A.T @ (A @ x - b)
    ),
}


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("way", LASSOS)
def test_lasso_at_a_knot_is_regular(way, seed):
    A, b, weight, x, tied = lars_knot(seed)
    assert tied.sum() == (x != 0).sum() + 1 and np.linalg.svd(A[:, tied], compute_uv=False)[-1] > 0.05
    found = LASSOS[way](A, b, weight, jnp.asarray(x))
    assert (found.verdict, found.num_kinks, found.bound) == ("regular", 1, "exact")
    assert found.sigma_min > 0 and found.clarke == 1


@pytest.mark.parametrize("way", LASSOS)
def test_lasso_with_a_duplicated_column_is_singular(way):
    A, b, weight, x, tied = lars_knot(1, duplicate=True)
    assert tied.sum() == (x != 0).sum() + 2
    found = LASSOS[way](A, b, weight, jnp.asarray(x))
    assert (found.verdict, found.num_kinks) == ("singular", 2)
    assert found.witness.shape == (2,) and np.all((found.witness >= 0) & (found.witness <= 1))
    assert found.witness.max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_lasso_where_several_coefficients_enter_at_once(seed):
    """At x = 0 with the largest weight: three or five columns tied, of four rows."""
    rng = np.random.default_rng(seed)
    count = (3, 4, 5)[seed]
    A, b = rng.normal(size=(4, 6)), rng.normal(size=4)
    aims = np.where(np.arange(6) < count, rng.choice([-1.0, 1.0], 6), 0.5)
    A += np.outer(b, aims - b @ A) / (b @ b)
    found = nsi.certify(plain(2.0))(jnp.zeros(6), A, b, 1.0)
    assert found.num_kinks == count
    assert int(found.code) == 1 if count <= 4 else int(found.code) < 1


# Monotone networks.


def network(n, m, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, n)) / n**0.5
    return (1 - m) * np.eye(n) - a.T @ a + b - b.T


def deq(z, W, b):
    return z - jax.nn.relu(W @ z + b)


def at_kinks(W, kinks, seed=0):
    """A bias for which so many entries of the solution sit at the kink of relu."""
    n = len(W)
    v = np.random.default_rng(seed).normal(size=n)
    v[:kinks] = 0
    z = np.maximum(v, 0)
    return jnp.asarray(z), v - W @ z


@pytest.mark.parametrize(("kinks", "bound"), [(0, "exact"), (5, "exact"), (14, "lower bound")])
def test_a_monotone_network_is_regular(kinks, bound):
    W = network(16, 0.4)
    z, b = at_kinks(W, kinks)
    found = nsi.certify(deq)(z, W, b)
    assert (found.verdict, found.num_kinks, found.bound) == ("regular", kinks, bound)
    sampled = np.random.default_rng(1).random((200, 16))
    sampled[:, kinks:] = np.asarray(z[kinks:] > 0)
    least = np.linalg.svd(np.eye(16) - sampled[:, :, None] * W, compute_uv=False)[:, -1].min()
    assert 0 < found.sigma_min <= least and monotone_bound(W, 0.4) <= least
    if bound == "exact":
        assert found.sigma_min >= monotone_bound(W)


def test_a_network_of_norm_one_is_not_regular_at_its_kink():
    """Where every selection is above, I - W has the kernel of W's eigenvalue 1."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    W = q * np.array([1.0, 0.5, -0.3, 0.9, 0.0, -1.0]) @ q.T
    z, b = at_kinks(W, 6)
    assert nsi.certify(deq)(z, W, b).verdict in ("singular", "undecided")
    assert nsi.certify(deq)(z, 0.999 * W, b).verdict == "regular"
    v = np.full((4, 4), 0.25)  # exactly
    found = nsi.certify(deq)(jnp.zeros(4), v, jnp.zeros(4))
    assert found.verdict == "singular"
    assert np.linalg.svd(np.eye(4) - found.witness[:, None] * v, compute_uv=False)[-1] < 1e-15


# Optimality conditions of linear programs: min c·x, A x = b, x >= 0.


def kkt(z, A, b, c):
    x, y = z
    return x - jnp.maximum(x - (c - A.T @ y), 0.0), A @ x - b


def vertex(degenerate):
    A = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 1.0]])
    x = np.array([2.0, 0.0 if degenerate else 1.0, 0.0, 0.0])
    y, slack = np.array([1.0, -2.0]), np.array([0.0, 0.0, 1.5, 0.5])
    return (jnp.asarray(x), jnp.asarray(y)), A, A @ x, A.T @ y + slack


def test_a_vertex_of_a_linear_program():
    found = nsi.certify(kkt)(*vertex(degenerate=False))
    assert (found.verdict, found.num_kinks) == ("regular", 0)
    found = nsi.certify(kkt)(*vertex(degenerate=True))
    assert (found.verdict, found.num_kinks) == ("singular", 1)
    assert found.clarke == -1


# Kernels that every selection shares.


def test_sinkhorn_potentials_are_regular_modulo_their_shift():
    rng = np.random.default_rng(0)
    C, a, b = rng.random((4, 3)) / 0.5, np.full(4, 0.25), np.array([0.2, 0.3, 0.5])

    def equations(z, a, b, C):
        x, y = z
        return (
            jnp.log(a) - logsumexp(y - C, 1) - x,
            jnp.log(b) - logsumexp(x[:, None] - C, 0) - y,
        )

    y = np.zeros(3)
    for _ in range(200):
        x = np.log(a) - np.log(np.exp(y - C).sum(1))
        y = np.log(b) - np.log(np.exp(x[:, None] - C).sum(0))
    found = nsi.certify(equations)((jnp.asarray(x), jnp.asarray(y)), a, b, C)
    assert (found.code, found.verdict) == (2, "regular modulo a kernel")
    np.testing.assert_allclose(np.abs(found.kernel), 7**-0.5)
    assert np.all(np.sign(found.kernel[:4]) == -np.sign(found.kernel[4:5])) and found.kernel.shape == (7, 1)
    assert "a shift of some unknowns up and the others down by one number" in str(found)
    assert found.sigma_min > 0.1 and found.clarke == 0


def test_redundant_constraints_leave_a_kernel_of_multipliers():
    A = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])

    def stationary(z, t):
        x, y = z
        return x + jnp.abs(x) / 2 - t + A.T @ y, A @ x - np.array([1.0, 2.0]) * t[0]

    x, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([-0.1, -0.2])
    t = jnp.array([1.0, -0.5, 0.0])  # 1.5 - t_0 + y_0 + 2 y_1 = 0 and -t_1 + y_0 + 2 y_1 = 0
    found = nsi.certify(stationary)((x, y), t)
    assert (int(found.code), found.num_kinks) == (2, 2)
    np.testing.assert_allclose(np.abs(found.kernel[:, 0]), [0, 0, 0, 2 / 5**0.5, 1 / 5**0.5], atol=1e-14)
    assert "kernel of dimension 1" in found.reason and "shift" not in found.reason


def test_a_kernel_that_moves_the_solution_off_is_singular():
    """0 = z² at 0, and a line of solutions that ends."""
    assert nsi.certify(lambda z: z**2)(jnp.zeros(2)).verdict == "singular"
    found = nsi.certify(lambda z: z - jnp.clip(z, 0.0, 1.0))(0.5)
    assert found.verdict == "singular" and "whatever the selection" in found.reason


# How it is decided.


def test_a_contraction_is_certified_from_its_constants():
    rng = np.random.default_rng(0)
    n = 200
    A = np.eye(n) + 0.2 * rng.normal(size=(n, n)) / n**0.5
    b = np.linalg.solve(A.T, rng.choice([-1.0, 1.0], n))  # every correlation is 1: 200 kinks at x = 0
    T = lasso_splitting("ForwardBackward", A, b, 1.0, 0.5)
    found = nsi.certify(T)(jnp.zeros(n))
    assert (found.verdict, found.num_kinks, found.bound) == ("regular", n, "lower bound")
    assert found.method.startswith("contraction: factor")
    gram = np.linalg.eigvalsh(A.T @ A)
    rate = max(abs(1 - 0.5 * gram[0]), abs(1 - 0.5 * gram[-1]))
    np.testing.assert_allclose(found.sigma_min, 1 - rate, rtol=1e-6)
    for s in rng.random((5, n)):
        matrix = np.eye(n) - s[:, None] * (np.eye(n) - 0.5 * A.T @ A)
        assert np.linalg.svd(matrix, compute_uv=False)[-1] >= found.sigma_min


def of_q(q, n=None, rng=None):
    """A form with this Q; with a random base if n is given."""
    k = len(q)
    if n is None:
        return NormalForm(np.eye(k), -np.eye(k), q, np.zeros((k, k)), q, np.zeros((k, k)))
    base, gain = np.eye(n) + 0.3 * rng.normal(size=(n, n)) / n**0.5, rng.normal(size=(n, k))
    into = -q @ np.linalg.pinv(np.linalg.solve(base, gain))
    return NormalForm(base, gain, into, np.zeros((k, k)), into, np.zeros((k, k)))


def hard(k, seed=0):
    """A P-matrix I - Q that no cheap test recognises."""
    q = np.kron(np.eye(k // 2), [[0.0, -30.0], [1.0, 0.0]])
    return q + 1e-3 * np.random.default_rng(seed).normal(size=(k, k))


def test_two_hundred_symmetrisable_kinks():
    rng = np.random.default_rng(0)
    factor, scale = rng.normal(size=(200, 300)) / 300**0.5, rng.uniform(0.3, 3, 200)
    q = np.eye(200) - scale[:, None] * (factor @ factor.T)
    start = time.perf_counter()
    found = judge(of_q(q), eps=EPS)
    spent = time.perf_counter() - start
    assert found.verdict == "regular" and "Cholesky" in found.method
    assert spent < 2  # 0.1 s on a free core; 2^200 minors would take longer
    factor[0] = factor[1]
    assert judge(of_q(np.eye(200) - scale[:, None] * (factor @ factor.T)), eps=EPS).verdict != "regular"


def test_more_kinks_than_are_enumerated_are_undecided():
    q = hard(10)

    def equation(z, q):
        return z - jax.nn.relu(q @ z)

    found = nsi.certify(equation, max_kinks=9)(jnp.zeros(10), q)
    assert found.verdict == "undecided" and found.num_kinks == 10 and "more than max_kinks=9" in str(found)
    assert np.isnan(found.sigma_min) and found.bound == "no bound"
    found = nsi.certify(equation, max_kinks=10)(jnp.zeros(10), q)
    assert found.verdict == "regular" and found.method == "all principal minors of I - Q"
    with pytest.raises(nsi.InputError, match=r"max_kinks=25(.|\n)*24"):
        nsi.certify(equation, max_kinks=25)(jnp.zeros(10), q)


@pytest.mark.slow
def test_sixteen_kinks_of_five_hundred_unknowns_and_twenty_on_request():
    rng = np.random.default_rng(0)
    form = of_q(hard(16), 500, rng)
    start = time.perf_counter()
    found = judge(form, eps=EPS)
    assert time.perf_counter() - start < 20  # 1 s on a free core
    assert found.verdict == "regular" and found.method == "all principal minors of I - Q"
    twenty = of_q(hard(20), 40, rng)
    assert judge(twenty, eps=EPS).verdict == "undecided"
    assert judge(twenty, eps=EPS, max_kinks=20).verdict == "regular"


@pytest.mark.slow
def test_a_hundred_thousand_unknowns_without_a_matrix():
    rng = np.random.default_rng(0)
    z = rng.uniform(0.5, 1.0, 100_000) * rng.choice([-1.0, 1.0], 100_000)
    kinks = rng.permutation(100_000)[:8]
    z[kinks] = 0.0

    def stencil(z, b, slope):
        return 2.5 * z - jnp.roll(z, 1) - jnp.roll(z, -1) / 2 + slope * jnp.abs(z) - b

    def certificate(at_kinks):
        slope = np.zeros(100_000)
        slope[kinks] = at_kinks
        return nsi.certify(stencil)(jnp.asarray(z), stencil(jnp.asarray(z), 0.0, slope), slope)

    found = certificate(1.0)  # at least 1.5 on the diagonal, beside 1.5 in the row
    assert (found.verdict, found.num_kinks, found.clarke) == ("regular", 8, 1) and "tangent solves" in found.method
    found = certificate(-4.0)  # from 6.5 to -1.5
    assert (found.verdict, found.num_kinks) == ("singular", 8) and 0 < found.witness.max() <= 1


# What stays undecided, and why.


def layer(t):
    return nsi.fixed_point(lambda z, t: nsi.relu(z) / 2 + t, 0 * t, t).value


UNDECIDED = {
    "norm": (lambda z: 2 * z + nsi.norm(z) / 4, r"norm at test_certify.py:\d+ is at 0, where its derivatives fill a"),
    "jump": (
        lambda z: 2 * z + jnp.where(z > 0, 1.0, 0.0),
        r"where at test_certify.py:\d+, entry 0 jumps here: .* discontinuous",
    ),
    "cond": (
        lambda z: lax.cond(z[0] > 0, lambda z: 3 * z, lambda z: 2 * z, z),
        r"cond at test_certify.py:\d+ was not looked into: it branches on a comparison",
    ),
    "implicit layer": (lambda z: 2 * z - layer(z) / 4, r"test_certify.py:\d+ was not looked into: an implicit layer"),
    "seven ties": (lambda z: 2 * z + 0.1 * jnp.sort(z[jnp.array([0, 1, 0, 1, 0, 1, 0])])[:2], "more than six equal"),
    "nan in a derivative": (lambda z: 2 * z + jnp.linalg.norm(z) / 4, "a derivative of the equation is nan"),
    "nan in the residual": (lambda z: jnp.abs(z) / z, "nan or infinite"),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_undecided_says_why(name):
    fun, reason = UNDECIDED[name]
    found = nsi.certify(fun)(jnp.zeros(2))
    assert (int(found.code), found.verdict) == (0, "undecided")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.reason)
    assert found.reason in str(found) and np.isnan(found.sigma_min)


def test_nan_in_the_solution_is_undecided():
    for fun in (lambda z: 2 * z, lambda z: 2 * z + jnp.abs(z) / 2):
        found = nsi.certify(fun)(jnp.array([0.0, jnp.nan]))
        assert found.verdict == "undecided" and "nan" in found.reason


def test_within_rounding_of_singular_is_undecided():
    def equation(z, q):
        return z - jax.nn.relu(q @ z)

    found = nsi.certify(equation)(jnp.zeros(3), np.diag([1 - 1e-16 * 3, 0.5, 0.0]))
    assert found.verdict in ("undecided", "singular")
    q = np.diag([1 - 1e-6, 0.5, 0.0])  # regular, but not for all that float32 knows
    assert nsi.certify(equation)(jnp.zeros(3), q).verdict == "regular"
    single = nsi.certify(equation)(jnp.zeros(3, jnp.float32), q.astype(np.float32))
    assert single.verdict in ("undecided", "singular")


# What is active.


def test_a_loose_solution_has_more_active_kinks_and_says_so():
    z, x = jnp.array([0.0, 1e-4, 1.0]), jnp.array([0.0, 2e-4, 2.0])

    def equation(z, x):
        return 2 * z + jnp.abs(z) / 2 - x - z * (z > 0) / 2

    exact = nsi.certify(equation)(z, x)
    assert exact.num_kinks == 1 and exact.tolerance < 1e-14
    loose = nsi.certify(equation)(z + 3e-4, x)
    assert loose.num_kinks == 2 and 3e-4 < loose.tolerance < 1e-2
    assert f"{loose.tolerance:.1e}" in str(loose) and f"{exact.tolerance:.1e}" in str(exact)
    asked = nsi.certify(equation, tolerance=1e-3)(z, x)
    assert asked.num_kinks == 2 and asked.tolerance == 1e-3
    assert nsi.certify(equation, tolerance=0.0)(z + 3e-4, x).num_kinks == 0


# What a problem can be.


@nsi.custom_root(lambda z, t: 2 * z + jnp.abs(z) - t)
def decorated(init, t):
    return np.where(t > 0, np.asarray(t) / 3, np.asarray(t))


def test_a_decorated_solver_is_called_and_certified():
    found = nsi.certify(decorated)(None, np.array([0.0, 3.0]))
    assert (found.verdict, found.num_kinks) == ("regular", 1)
    np.testing.assert_allclose(found.sigma_min, 1.0)


def test_keywords_trees_and_numbers():
    def equation(z, *, t):
        return {"a": 2 * z["a"] + jnp.abs(z["b"]), "b": z["b"] - t}

    found = nsi.certify(equation)({"a": 0.0, "b": 0.0}, t=0.0)
    assert (found.verdict, found.num_kinks) == ("regular", 1)


def test_the_wrong_shape_is_refused():
    with pytest.raises(nsi.InputError):
        nsi.certify(lambda z: z[:1])(jnp.zeros(2))


# A certificate as a value.


@pytest.fixture(scope="module")
def found():
    return nsi.certify(clarke)(jnp.zeros(2), jnp.zeros(2))


def test_it_crosses_jit_and_has_no_word_there(found):
    out = jax.jit(lambda c: c)(found)
    assert isinstance(out, nsi.Certificate) and out.verdict == "regular" and out.names == found.names
    with pytest.raises(nsi.InputError, match=r"Certificate.verdict(.|\n)*traced(.|\n)*use .code"):
        jax.jit(lambda c: c.verdict == "regular")(found)
    seen = []
    jax.jit(lambda c: seen.append(repr(c)) or c.code)(found)
    assert seen == ["Certificate(traced)"]
    assert jax.vmap(lambda c: c.code, axis_size=2, in_axes=None)(found).tolist() == [1, 1]


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_traced_arguments_are_refused(transform):
    def word(w):
        return jnp.sum(nsi.certify(clarke)(jnp.zeros(2), w).sigma_min)

    with pytest.raises(nsi.InputError, match=r"certify\(clarke\)\(...\)(.|\n)*traced(.|\n)*AllSelections"):
        transform(word)(jnp.zeros((3, 2) if transform is jax.vmap else 2))


def test_it_reads_well(found):
    text = str(found)
    assert repr(found) == text and text.startswith("certificate: regular\n")
    assert "sigma_min  0.382 over all selections (exact)" in text and "2 active within" in text
    assert "abs at test_certify.py:" in text and "implicit function theorem applies" in text
    assert max(map(len, text.splitlines()[:-1])) < 160
    page = found._repr_html_()
    assert page.count("<tr>") == page.count("</tr>") >= 5 and "<b>certificate: regular</b>" in page
    odd = judge(by_hand.normal_form(lambda ops, x: ops.abs(x), 1), eps=EPS)
    assert odd.verdict == "singular" and "witness    singular at selections [0.5]" in str(odd)
    assert "&#x27;" not in page and json.dumps(found.names)
