"""Losses, activations and rules where formulas degenerate, and what they promise beyond the common laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi
from nsimplicit import prox
from nsimplicit.prox.omega import omega
from nsimplicit.prox.scalar_newton import root


def test_omega_is_scipys_without_overflow():
    c = np.concatenate([np.linspace(-700, 700, 501), np.linspace(0.9, 1.1, 41), [1e300]])
    want = scipy.special.wrightomega(c)
    np.testing.assert_allclose(omega(jnp.asarray(c)), want, rtol=3e-15)
    small = c[np.abs(c) < 80].astype(np.float32)
    np.testing.assert_allclose(jax.jit(omega)(small), scipy.special.wrightomega(small.astype(float)), rtol=1e-4)
    assert np.isnan(omega(jnp.array(np.nan)))


def _steep(u, x):
    """Almost a step: Newton's method alone leaves every bracket."""
    return jnp.arctan(1e6 * (u - x)) + 1e-6 * u**3


def _cubic(u, x):
    """Slope zero at the middle of the bracket."""
    return u**3 - x


def test_the_scalar_iteration_finds_hard_roots():
    x = jnp.array([0.3, -0.7, 0.0, 0.999999])
    u = jax.jit(lambda x: root(_steep, jnp.full(4, -1.0), jnp.full(4, 1.0), x))(x)
    np.testing.assert_allclose(u, x, atol=1e-11)
    for low in (-1.0, -1e6):
        u = jax.jit(lambda x, low=low: root(_cubic, jnp.full(4, low), jnp.full(4, 2.0), x))(x)
        np.testing.assert_allclose(u, np.cbrt(x), rtol=1e-12, atol=1e-6)
    u = root(_cubic, jnp.full(2, -1.0), jnp.full(2, 2.0), jnp.array([0.5, np.nan]))
    assert np.isfinite(u[0]) and np.isnan(u[1])


def test_the_hinge_without_weight_or_label_is_the_identity():
    x = jnp.array([1.0, 0.3, 2.0, 1.0])

    @functools.partial(jax.jit, static_argnums=2)
    def slopes(labels, weight, s):
        g = prox.Hinge(labels, weight, selection=s)
        return g.prox(x, 0.5), jax.jvp(lambda x: g.prox(x, 0.5), (x,), (jnp.ones(4),))[1]

    for labels, weight in ((1.0, 0.0), (0.0, 1.0)):
        for s in (None, 1.0):
            value, tangent = slopes(labels, weight, s)
            np.testing.assert_array_equal(value, x)
            np.testing.assert_array_equal(tangent, 1)
    # The weight still sees it: an entry short of its margin moves by step * weight.
    slope = jax.jit(jax.jacobian(lambda w: prox.Hinge(1.0, w).prox(x, 0.5)))(0.0)
    np.testing.assert_array_equal(slope, [0, 0.5, 0, 0])


LABELS = np.eye(5)[1]
EXTREME = {
    "Entropy": prox.Entropy(1.0, 2.0),
    "CrossEntropy": prox.CrossEntropy(LABELS),
    "Logistic": prox.Logistic(-1.0),
    "LogBarrier": prox.LogBarrier(1.0),
    "KL": prox.KL(2.0),
    "tanh": prox.activation("tanh"),
    "softplus": prox.activation("softplus"),
}


@jax.jit
def extremes(x, step):
    """Each prox, and the derivatives of its sum in point and step."""
    sums = {k: jax.grad(lambda x, s, g=g: g.prox(x, s).sum(), (0, 1))(x, step) for k, g in EXTREME.items()}
    return {k: g.prox(x, step) for k, g in EXTREME.items()}, sums


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
@pytest.mark.parametrize("step", (1e-6, 1e6))
def test_large_and_small_arguments(dtype, step):
    x = np.array([-1e4, -1.0, 0.0, 2.0, 1e4], dtype)
    values, slopes = extremes(x, dtype(step))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((values, slopes)))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(values))
    np.testing.assert_allclose(values["Entropy"].sum(), 2, rtol=1e-5)
    wide = extremes(x.astype(float), step)[0]
    rounding = 4 * float(jnp.finfo(dtype).eps) * max(1e4, step)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rounding), values, wide)
    u = np.asarray(wide["CrossEntropy"])
    residual = u - x + step * (scipy.special.softmax(u) - LABELS)
    np.testing.assert_allclose(residual, 0, atol=1e-15 * max(1e4, step) * (1 + step / 4))


def test_entropy_is_between_the_simplex_and_its_centre():
    z = np.array([0.3, 0.9, -2.0])
    entropy = jax.jit(lambda w: prox.Entropy(w).prox(z, 1.0))
    np.testing.assert_allclose(entropy(1e-6), prox.Simplex().project(z), atol=1e-4)
    np.testing.assert_allclose(entropy(1e6), 1 / 3, atol=1e-5)
    # The smaller root of the barrier's quadratic, without cancellation.
    np.testing.assert_allclose(prox.LogBarrier(1.0).prox(-1e8, 1.0), 1e-8, rtol=1e-14)


def test_zero_targets_and_zero_entries():
    g = prox.KL(jnp.array([0.0, 1.0]))
    assert float(g(jnp.array([0.0, 0.0]))) == 1 and np.isinf(g(jnp.array([0.1, 1.0])))
    value, slope = jax.value_and_grad(lambda y: prox.KL(y).prox(jnp.array([3.0, 3.0]), 1.0).sum())(g.target)
    assert np.all(np.isfinite(slope)) and slope[0] == 0
    assert g.prox(jnp.array([3.0, 3.0]), 1.0)[0] == 0 < value
    assert np.all(np.isfinite(jax.grad(prox.Entropy())(jnp.array([1.0, 0.0]))))
    one_hot = prox.CrossEntropy(jnp.array([1.0, 0.0]))
    assert float(one_hot(jnp.array([800.0, 0.0]))) == 0 and float(one_hot(jnp.array([0.0, 800.0]))) == 800


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "elu"])
def test_an_activation_is_its_prox_with_step_one_alone(name):
    sigma, g = getattr(jnp, name, None) or getattr(jax.nn, name), prox.activation(name)
    x = jnp.array([-30.0, -2.0, 0.0, 0.5, 3.0, 20.0])
    np.testing.assert_array_equal(jax.jit(g.prox)(x, 1.0), jax.jit(sigma)(x))
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: g.prox(x, 1.0)))(x), jax.vmap(jax.grad(sigma))(x))
    assert all(np.max(np.abs(jax.jit(g.prox)(x, step) - sigma(x))) > 1e-3 for step in (1e-3, 0.3, 5.0, 1e3))
    assert isinstance(g, prox.Activation)


def test_every_step_of_a_splitting_has_the_same_fixed_point():
    """A monotone network: z = tanh(W z + b). With tanh in place of its prox a step other than 1 goes elsewhere."""
    rng = np.random.default_rng(3)
    M, S = rng.normal(size=(2, 4, 4))
    W = jnp.asarray(0.5 * np.eye(4) - 0.2 * M @ M.T + S - S.T)
    b = jnp.asarray(rng.normal(size=4))
    f = prox.activation("tanh")

    def T(z, W, b, alpha):
        return f.prox((1 - alpha) * z + alpha * (W @ z + b), alpha)

    def solve(b, alpha):
        z = nsi.fixed_point(T, jnp.zeros(4), W, b, alpha, tol=1e-13, max_steps=20000).value
        return z, z

    both = jax.jit(jax.jacobian(solve, has_aux=True))
    for alpha in (0.02, 0.04):
        slope, z = both(b, alpha)
        np.testing.assert_allclose(z, jnp.tanh(W @ z + b), atol=1e-11)
        J = np.diag(1 - np.asarray(z) ** 2)
        np.testing.assert_allclose(slope, np.linalg.solve(np.eye(4) - J @ W, J), atol=1e-10)


def test_selections_of_activations_default_to_those_of_jax():
    kinks = {"relu": 0.0, "hard_tanh": 1.0}
    for name, x in kinks.items():
        want = jax.grad(getattr(jax.nn, name))(x)
        assert jax.grad(lambda x, name=name: prox.activation(name).prox(x, 0.5))(x) == want
        assert jax.grad(lambda x, name=name: prox.activation(name, selection=0.25).prox(x, 0.5))(x) == 0.25
    swapped = nsi.with_selection(lambda x: prox.activation("relu").prox(x, 0.5), 0.75)
    assert jax.grad(swapped)(0.0) == 0.75


def test_separable_functions_take_a_step_for_each_entry():
    """What a diagonal scaling relies on."""
    x, step = np.array([0.9, -1.7, 0.2]), np.array([0.5, 0.1, 2.0])
    smooth_hinge, box = prox.SmoothedHinge(-1.0, 0.5), prox.SquaredDistanceTo(prox.Box(-1.0, 1.0))
    functions = [smooth_hinge, box, prox.Hinge(), prox.Logistic(), prox.KL(), prox.LogBarrier(), prox.MCP(1.0)]
    functions += [prox.L0(1.0), prox.LogSum(1.0), prox.MoreauEnvelope(prox.L1(1.0), 0.5), prox.activation("tanh")]
    assert all(g.is_separable for g in functions)
    apply = jax.jit(lambda x, s: [g.prox(x, s) for g in functions])
    together = apply(x, step)
    for i in range(3):
        for got, want in zip(together, apply(x, np.full(3, step[i])), strict=True):
            np.testing.assert_allclose(got[i], want[i], rtol=1e-14, atol=1e-15)


def test_smooth_functions_have_no_kinks():
    x = jnp.array([0.4, 0.0, 0.3])
    smooth = [prox.Logistic(), prox.CrossEntropy(x), prox.KL(x + 1), prox.LogBarrier(), prox.Entropy()]
    smooth.append(prox.activation("elu"))
    for g in smooth:
        report = nsi.kinks(lambda x, g=g: g.prox(x, 0.5))(x)
        assert report.rows == () and report.opaque == ()


def test_distances_on_and_off_the_set():
    box = prox.Box(-1.0, 1.0)
    x = jnp.array([0.2, 3.0])
    for weight in (0.0, 10.0):
        g = prox.DistanceTo(box, weight)
        want = x if weight == 0 else box.project(x)
        np.testing.assert_array_equal(g.prox(x, 0.5), want)
        np.testing.assert_array_equal(jax.jacobian(lambda x, g=g: g.prox(x, 0.5))(x), np.diag([1, weight == 0]))
    inside = jnp.array([0.2, -0.3])  # at distance 0, where a norm has no gradient
    for g in (prox.DistanceTo(box), prox.SquaredDistanceTo(box)):
        np.testing.assert_array_equal(jax.jacobian(lambda x, g=g: g.prox(x, 0.5))(inside), np.eye(2))
        np.testing.assert_array_equal(jax.grad(g)(inside), 0)
    tree = {"a": jnp.array([4.0]), "b": (jnp.array(-5.0), jnp.zeros(2))}
    moved = prox.DistanceTo(box).prox(tree, 2.5)
    np.testing.assert_allclose(moved["a"], [2.5])  # by half of (3, -4)
    np.testing.assert_allclose(moved["b"][0], -3.0)
    np.testing.assert_allclose(prox.SquaredDistanceTo(box).prox(tree, 1.0)["b"][0], -3.0)
    assert not prox.DistanceTo(prox.L0Ball(1)).is_convex and not prox.SquaredDistanceTo(prox.L0Ball(1)).is_smooth


def test_derivatives_of_an_envelope():
    """Of every order, in the point, mu and the parameters: for an l1 norm it is the Huber function."""

    def huber(x, w, mu):
        return jnp.sum(jnp.where(jnp.abs(x) <= mu * w, x**2 / (2 * mu), w * jnp.abs(x) - mu * w**2 / 2))

    def envelope(x, w, mu):
        return prox.MoreauEnvelope(prox.L1(w), mu)(x)

    args = (jnp.array([3.0, -0.5, -2.0]), 1.2, 0.75)
    for order in (jax.grad, lambda f, argnums: jax.jacrev(jax.grad(f, argnums), argnums)):
        got, want = (jax.jit(order(f, argnums=(0, 1, 2)))(*args) for f in (envelope, huber))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14), got, want)
    # Where the prox has a kink the gradient is what it is, whatever the selection.
    for s in (0.0, 1.0):
        gradient = jax.jit(prox.MoreauEnvelope(prox.L1(1.5, selection=s), 0.5).gradient)
        x = jnp.array([0.75, -0.75])
        np.testing.assert_array_equal(gradient(x), [1.5, -1.5])
        np.testing.assert_array_equal(jax.jacobian(gradient)(x), (1 - s) / 0.5 * np.eye(2))
    assert prox.MoreauEnvelope(prox.L0(1.0), 1.0).lipschitz is None


def test_the_prox_of_a_sum_is_a_layer():
    """By Douglas-Rachford on f and on g plus the square that the prox adds: differentiated by the implicit rule."""

    def value(x, f, g):
        return f(x) + g(x)

    def prox_of_sum(x, step, f, g):
        T = nsi.splittings.DouglasRachford(prox.Regularize(f, 1 / step, x), g, step)
        return nsi.fixed_point(T, x, tol=1e-13).value

    def apply(x, step, w, v):
        f, g = prox.L1(w), prox.L2(v)
        return prox.from_function(value, prox_of_sum, f, g).prox(x, step)

    def closed(x, step, w, v):  # of these two: one after the other
        return prox.L2(v).prox(prox.L1(w).prox(x, step), step)

    args = (jnp.array([2.0, -0.3, -1.5]), 0.5, 1.2, 0.4)
    np.testing.assert_allclose(jax.jit(apply)(*args), closed(*args), atol=1e-11)
    got, want = (jax.jit(jax.jacrev(f, (0, 1, 2, 3)))(*args) for f in (apply, closed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), got, want)


def test_iterations_inside_shard_map():
    """Points are split, the weight is not: what is iterated varies with either."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("m",))
    x = jnp.linspace(-2.0, 2.0, 12).reshape(4, 3)

    def local(x, w):
        return prox.CrossEntropy(jnp.eye(3)[0], w).prox(x, 0.5), prox.LogSum(w, 0.25).prox(x, 0.5)

    run = jax.shard_map(local, mesh=mesh, in_specs=(P("m"), P()), out_specs=P("m"))

    def slope(f):
        return jax.jit(jax.grad(lambda x, w: sum(jnp.sum(jnp.sin(u)) for u in f(x, w)), (0, 1)))(x, 1.5)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), slope(run), slope(local))
