"""The derivative modes: orders, memory, refusals, and what each mode computes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.axes import DERIVATIVES, FIRST_ORDER, FORWARD_ONLY, QUICK

D, S = nsi.derivatives, nsi.solvers

# ---- orders -------------------------------------------------------------------------------------

MIX = jnp.array([[0.3, -0.4], [0.2, 0.1]])  # nonsymmetric; tanh(MIX z + ...) contracts with factor .51


def curved(z, theta):
    return jnp.tanh(MIX @ z + theta**2 * jnp.array([1.0, -0.5]) + 0.3)


def loss_with(derivative, solver=S.Picard()):
    def loss(theta):
        z = nsi.fixed_point(curved, jnp.zeros(2), theta, solver=solver, derivative=derivative, tol=1e-15).value
        return jnp.sum(z**2 + jnp.sin(z))

    return loss


THETA = jnp.array([0.4, -0.7])
ORDERS = {
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f)),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
}


@pytest.fixture(scope="module")
def hessian():
    """Central differences of central differences of an independent, plain iteration."""

    def loss(theta):
        z = np.zeros(2)
        for _ in range(80):
            z = np.tanh(np.asarray(MIX) @ z + theta**2 * np.array([1.0, -0.5]) + 0.3)
        return np.sum(z**2 + np.sin(z))

    h, eye, theta = 1e-4, np.eye(2), np.asarray(THETA)
    return np.array(
        [
            [
                sum(s * t * loss(theta + h * (s * a + t * b)) for s, t in itertools.product((1, -1), repeat=2))
                / (4 * h**2)
                for a in eye
            ]
            for b in eye
        ]
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "derivative", [D.Implicit(), D.Unrolled(60), D.Unrolled(60, checkpoint=True)], ids=["implicit", "unrolled", "remat"]
)
def test_second_derivatives_agree_in_all_four_orders(derivative, order, hessian):
    got = jax.jit(ORDERS[order](loss_with(derivative)), compiler_options=QUICK)(THETA)
    np.testing.assert_allclose(got, hessian, atol=3e-7)  # rounding 1e-16 / h**2 and curvature h**2 of the differences
    exact = jax.jit(ORDERS["forward over reverse"](loss_with(D.Implicit())), compiler_options=QUICK)(THETA)
    np.testing.assert_allclose(got, exact, atol=1e-12)  # iterates at tolerance 1e-15 over (1 - rate)^3


@pytest.mark.parametrize(
    "solver", [S.Anderson(), S.Broyden(), S.Nesterov(), S.SemismoothNewton()], ids=lambda s: type(s).__name__
)
def test_every_solver_unrolls_to_second_order(solver):
    expected = jax.jit(jax.hessian(loss_with(D.Implicit())), compiler_options=QUICK)(THETA)
    steps = 12 if isinstance(solver, S.SemismoothNewton) else 80
    got = jax.jit(ORDERS["reverse over reverse"](loss_with(D.Unrolled(steps), solver)), compiler_options=QUICK)(THETA)
    np.testing.assert_allclose(got, expected, atol=1e-12)  # as above


ONCE = {name: make("Picard") for name, make in DERIVATIVES.items() if name in FIRST_ORDER}
SECOND = r"a second derivative was asked for(.|\n)*Try: \(a\) derivative=nsi.derivatives.Implicit\(\)"
REVERSE = r"a reverse-mode derivative was asked for(.|\n)*Try: \(a\) jax.jvp or jax.jacfwd"


def trace(fun, *args):
    """Trace only: a refusal must come before anything is compiled."""
    jax.eval_shape(fun, *args)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ONCE)
def test_a_second_derivative_of_a_first_order_mode_is_refused(mode, order):
    twice = ORDERS[order](loss_with(ONCE[mode]))
    pattern = f"({SECOND})|({REVERSE})" if mode in FORWARD_ONLY and "reverse" in order else SECOND
    for fun, args in ((twice, THETA), (jax.jit(twice), THETA), (jax.vmap(twice), THETA[None])):
        with pytest.raises(nsi.DerivativeError, match=pattern):
            trace(fun, args)


@pytest.mark.parametrize("mode", [mode for mode in ONCE if mode not in FORWARD_ONLY])
def test_a_first_derivative_is_not_taken_for_a_second(mode):
    loss = loss_with(ONCE[mode])
    trace(jax.vmap(jax.grad(loss)), THETA[None])
    trace(jax.grad(lambda thetas: jnp.sum(jax.vmap(loss)(thetas))), THETA[None])
    trace(jax.grad(jax.checkpoint(loss)), THETA)
    trace(jax.grad(lambda theta: loss(theta) + loss(theta + loss(theta))), THETA)
    trace(lambda theta: jax.lax.scan(lambda t, _: (t - 0.1 * jax.grad(loss)(t), None), theta, None, length=3), THETA)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
@pytest.mark.parametrize("reverse", [jax.grad, jax.jacrev], ids=["grad", "jacrev"])
def test_piggyback_has_no_reverse_mode_and_says_so(reverse, wrap):
    loss = loss_with(D.Piggyback())
    theta = THETA[None] if wrap is jax.vmap else THETA
    with pytest.raises(nsi.DerivativeError, match=REVERSE):
        trace(wrap(reverse(loss)), theta)
    with pytest.raises(nsi.DerivativeError, match=REVERSE):
        trace(reverse(lambda t: jnp.sum(wrap(loss)(t))), theta)


# ---- refusals -----------------------------------------------------------------------------------


def opaque(derivative, decorate=nsi.custom_fixed_point):
    @decorate(lambda z, t: jnp.cos(z) * t, derivative=derivative)
    def solver(z, t):
        return jax.pure_callback(lambda t: np.asarray(t, np.float64), jax.ShapeDtypeStruct((), jnp.float64), t)

    return lambda: solver(0.0, 0.5)


def newton(derivative):
    solver = S.SemismoothNewton()
    return lambda: nsi.fixed_point(lambda z, t: jnp.cos(z) * t, 0.0, 0.5, solver=solver, derivative=derivative)


REFUSED = {
    "Neumann under Newton": (
        newton(D.Neumann(3)),
        r"(?s)fixed_point\(derivative=derivatives.Neumann.*Newton.*OneStep\(\)",
    ),
    "Neumann of a root": (
        lambda: nsi.root(lambda z, t: z**3 + z - t, 0.0, 0.5, derivative=D.Neumann(3)),
        r"(?s)root\(derivative=derivatives.Neumann.*contraction",
    ),
    "Neumann of an opaque root": (
        opaque(D.Neumann(3), nsi.custom_root),
        r"(?s)derivative=derivatives.Neumann.*contraction",
    ),
    "Unrolled of an opaque solver": (
        opaque(D.Unrolled(9)),
        r"(?s)derivative=derivatives.Unrolled.*opaque.*Implicit\(\)",
    ),
    "Unrolled of an opaque root": (
        opaque(D.Unrolled(9), nsi.custom_root),
        r"(?s)derivative=derivatives.Unrolled.*opaque",
    ),
    "Piggyback of an opaque solver": (
        opaque(D.Piggyback()),
        r"(?s)derivative=derivatives.Piggyback.*opaque.*Implicit\(\)",
    ),
    "Truncated of an opaque root": (
        opaque(D.Truncated(2), nsi.custom_root),
        r"(?s)derivative=derivatives.Truncated.*gives no step",
    ),
    "OneStep of an opaque root": (
        opaque(D.OneStep(), nsi.custom_root),
        r"(?s)derivative=derivatives.OneStep.*gives no step",
    ),
    **{
        f"a root with {type(solver).__name__}": (
            lambda solver=solver: nsi.root(lambda z, t: z**3 + z - t, 0.0, 0.5, solver=solver),
            rf"(?s)root\(solver={type(solver).__name__}\(\)\).*fixed-point map.*SemismoothNewton",
        )
        for solver in (S.Picard(), S.Anderson(), S.Nesterov())
    },
}


@pytest.mark.parametrize("cell", REFUSED)
def test_cells_that_make_no_sense_are_refused_when_traced(cell):
    call, pattern = REFUSED[cell]
    with pytest.raises((nsi.DerivativeError, nsi.InputError), match=pattern):
        trace(call)


@pytest.mark.parametrize(
    "make, pattern",
    [
        (lambda: D.Unrolled(0), r"Unrolled\(steps=0\)(.|\n)*positive Python int"),
        (lambda: D.Unrolled(2.0), r"Unrolled\(steps=2.0\)"),
        (lambda: D.Unrolled(jnp.asarray(3)), "Unrolled"),
        (lambda: D.Truncated(0), r"Truncated\(k=0\)(.|\n)*positive Python int"),
        (lambda: D.Neumann(-1), r"Neumann\(k=-1\)"),
        (lambda: D.Truncated(2, damping=0.0), r"Truncated\(damping=0.0\)"),
    ],
)
def test_a_mode_checks_its_numbers(make, pattern):
    with pytest.raises(nsi.InputError, match=pattern):
        make()


# ---- what each mode computes --------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_k_steps_have_the_error_of_a_truncated_series(k, damping):
    # For a symmetric A: K-step = sum of the first k terms, relative error exactly A_d^k with A_d = 1 - d + d A.
    A, b = 0.7, 2.0
    exact = b / (1 - A)

    def slope(derivative):
        return jax.grad(
            lambda t: nsi.fixed_point(lambda z, t: A * z + b * t, 0.0, t, derivative=derivative, tol=1e-14).value
        )(1.0)

    got = slope(D.Truncated(k, damping))
    np.testing.assert_allclose(got, exact * (1 - (1 - damping + damping * A) ** k), rtol=1e-12)  # rounding
    if damping == 1.0:
        np.testing.assert_allclose(slope(D.Neumann(k)), got, rtol=1e-12)  # rounding


def test_one_step_is_exact_under_newton():
    # x^3 + x = t: one Newton step is asymptotically exact, the last term of its error is ours, |x - x*|.
    got = jax.grad(lambda t: nsi.root(lambda x, t: x**3 + x - t, 1.5, t, derivative=D.OneStep(), tol=1e-12).value)(3.0)
    x = nsi.root(lambda x: x**3 + x - 3, 1.5, tol=1e-15).value
    np.testing.assert_allclose(got, 1 / (3 * x**2 + 1), rtol=1e-12)  # quadratic convergence at tolerance 1e-12


def test_piggyback_waits_for_the_derivative_when_the_iterate_has_converged():
    # Started at the solution, the iterate stops at once and the derivative needs forty steps.
    def f(t):
        return nsi.fixed_point(lambda z, t: 0.5 * z + t, 2.0, t, derivative=D.Piggyback(), tol=1e-12)

    out, tangent = jax.jvp(f, (1.0,), (1.0,))
    assert int(out.num_steps) == 1
    np.testing.assert_allclose(tangent.value, 2.0, rtol=1e-11)  # tolerance 1e-12 over 1 - 1/2, times 1 + 2


def test_unrolled_at_a_kink_met_never_keeps_swinging():
    # theta - x/2 for x >= 0, theta - x/4 below: at theta = 0 from x0 = 1 the iterates pass the kink on both sides
    # for ever, and the derivative swings between the end points 6/7 and 4/7 of the piggyback set.
    def T(x, theta):
        return theta - nsi.switch(x, x / 2, x / 4)

    def unrolled(theta, steps):
        return nsi.fixed_point(T, 1.0, theta, derivative=D.Unrolled(steps)).value

    even, odd = (float(jax.grad(unrolled)(0.0, k)) for k in (20, 21))
    np.testing.assert_allclose([even, odd], [6 / 7, 4 / 7], atol=1e-6)  # (1/8)^10 from the limit
    for theta, slope in ((1e-3, 2 / 3), (-1e-3, 4 / 5)):
        np.testing.assert_allclose(jax.grad(unrolled)(theta, 60), slope, rtol=1e-12)  # 2^-60
        implicit = jax.grad(lambda t: nsi.fixed_point(T, 1.0, t).value)(theta)
        np.testing.assert_allclose(implicit, slope, rtol=1e-12)  # rounding


# ---- memory -------------------------------------------------------------------------------------


def wide(z, theta):
    return 0.5 * jnp.tanh(z) + theta


def temporary_bytes(derivative, max_steps=100):
    """What XLA allocates beside arguments and results for one derivative of a state of 1000 numbers."""

    def loss(theta):
        z = nsi.fixed_point(wide, jnp.zeros(1000), theta, derivative=derivative, max_steps=max_steps).value
        return jnp.sum(z**2)

    theta = jnp.ones(1000)
    if isinstance(derivative, D.Piggyback):
        compiled = jax.jit(lambda t: jax.jvp(loss, (t,), (t,))).lower(theta).compile()
    else:
        compiled = jax.jit(jax.grad(loss)).lower(theta).compile()
    return compiled.memory_analysis().temp_size_in_bytes


STATE = 8000  # bytes


@pytest.mark.parametrize(
    "make",
    [lambda k: (D.Implicit(), k), lambda k: (D.Piggyback(), k), lambda k: (D.Neumann(k), 100)],
    ids=["implicit", "piggyback", "neumann"],
)
def test_memory_is_flat_in_the_number_of_steps(make):
    few, many = (temporary_bytes(*make(k)) for k in (40, 360))
    assert many - few < STATE  # not one state more for 320 steps more


@pytest.mark.parametrize("make", [D.Unrolled, D.Truncated], ids=["unrolled", "truncated"])
def test_memory_grows_with_every_step(make):
    few, many = (temporary_bytes(make(k)) for k in (40, 360))
    assert 0.9 < (many - few) / (320 * STATE) < 2.1  # what tanh needs to be run back: one number or two


def test_memory_of_a_checkpointed_unrolling_grows_like_the_square_root():
    sizes = [temporary_bytes(D.Unrolled(k, checkpoint=True)) / STATE for k in (36, 144, 576)]
    first, second = np.diff(sizes)  # for 6 and 12 more in sqrt(k), 108 and 432 more in k
    assert first <= 4 * 6  # the states at the cuts, and one stretch: at most 4 numbers for each of sqrt(k)
    assert 1.8 < second / first < 2.2
