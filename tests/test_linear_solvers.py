"""Every linear solver against NumPy: one system, many lanes, both precisions, zero and singular right-hand sides."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsimplicit import InputError
from nsimplicit._tree import Space
from nsimplicit.linear_solvers import (
    CG,
    GMRES,
    Auto,
    BiCGStab,
    Custom,
    Dense,
    Fallback,
    FixedPointAdjoint,
    LinearSolution,
    LinearSolver,
    NormalCG,
    Operator,
    ProxCG,
    RestrictedCholesky,
)
from nsimplicit.linear_solvers.auto import choose
from nsimplicit.linear_solvers.dense import invert
from nsimplicit.linear_solvers.lsqr import lsqr
from nsimplicit.linear_solvers.operator import General, ProxGradient, Symmetric
from nsimplicit.solvers import Anderson, Picard, SemismoothNewton


def system(n, kind, seed=0):
    """A matrix and what is known of it: general, symmetric, or that of a proximal gradient step."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(n, n))
    if kind == "general":
        return G + 2 * np.sqrt(n) * np.eye(n), lambda M: General()
    if kind == "contraction":
        return np.eye(n) - 0.7 * G / np.linalg.norm(G, 2), lambda M: General()
    H = G @ G.T / n + 0.5 * np.eye(n)
    if kind in ("definite", "negative"):
        return (H if kind == "definite" else -H), lambda M: Symmetric()
    S = np.eye(n) - H / np.linalg.norm(H, 2)
    d = (rng.random(n) < 0.6).astype(float)
    M = np.eye(n) - d[:, None] * S
    structure = ProxGradient(lambda v: d.astype(v.dtype) * v, lambda v: S.astype(v.dtype) @ v, kind == "transposed")
    return (M.T if kind == "transposed" else M), lambda M: structure


def with_columns(kind):
    """The same systems with the blocks of step·H at hand."""
    M, structure = system(30, kind)
    d = np.asarray(structure(None).prox(np.ones(30)))
    step_h = np.eye(30) - np.asarray(jax.vmap(structure(None).forward)(np.eye(30)))

    def block(index):
        return jnp.asarray(step_h)[index[:, None], index]

    assert 0 < d.sum() < 30
    return dataclasses.replace(structure(None), block=block)


CASES = [
    (Dense(), "general"),
    (Auto(), "general"),
    (GMRES(), "general"),
    (GMRES(restart=20), "general"),
    (Custom(lambda matvec, b: jnp.linalg.solve(jax.vmap(matvec)(jnp.eye(len(b), dtype=b.dtype)).T, b)), "general"),
    (CG(), "definite"),
    (CG(), "negative"),
    (ProxCG(), "prox"),
    (ProxCG(), "transposed"),
    (BiCGStab(), "general"),
    (NormalCG(), "general"),
    (FixedPointAdjoint(Picard()), "contraction"),
    (FixedPointAdjoint(Anderson()), "contraction"),
    (Fallback(GMRES(max_steps=3), Dense()), "general"),
]


def name(case):
    return f"{type(case).__name__}" if isinstance(case, LinearSolver) else str(case)


def solved(solver, matrix, b, structure=lambda M: General(), guess=None):
    """The solution as a tuple that crosses jit."""
    out = solver.solve(Operator(lambda v: matrix @ v, structure(matrix)), b, guess)
    assert isinstance(out, LinearSolution)
    return out.value, out.num_steps, out.norm, out.condition


@functools.cache
def compiled(solver, kind):
    _, structure = system(30, kind)
    return jax.jit(lambda M, b: solved(solver, M, b, structure))


@pytest.mark.parametrize(
    "solver, kind, dtype",
    [(*case, np.float64) for case in CASES] + [(*CASES[i], np.float32) for i in (0, 2, 5, 7, 9, 10, 11, 12, 13)],
    ids=lambda x: x.__name__ if isinstance(x, type) else name(x),
)
def test_agrees_with_numpy(solver, kind, dtype):
    M, _ = system(30, kind)
    b = np.random.default_rng(1).normal(size=30)
    x, steps, norm, condition = compiled(solver, kind)(M.astype(dtype), b.astype(dtype))
    # default tolerance eps^(3/4) of the right-hand side, times the condition number, at most 70 here
    np.testing.assert_allclose(x, np.linalg.solve(M, b), atol=100 * np.finfo(dtype).eps ** 0.75)
    assert x.dtype == dtype
    assert 0 <= steps <= 85  # two cycles of GMRES; two products a step for BiCGStab and NormalCG; .7^80 for Picard
    assert float(norm) <= np.linalg.norm(M, 1) * (1 + 1e-5)  # from below
    assert not float(condition) > np.linalg.cond(M, 1) * (1 + 1e-3)  # from below; nan where unknown


@pytest.mark.parametrize("solver, kind", CASES, ids=name)
def test_zero_right_hand_side(solver, kind):
    x, steps, _, _ = compiled(solver, kind)(system(30, kind)[0], np.zeros(30))
    np.testing.assert_array_equal(x, np.zeros(30))
    assert steps == (31 if isinstance(solver, Dense | Auto) else 0)


@pytest.mark.parametrize("solver, kind", [CASES[i] for i in (2, 5, 7, 8, 9, 10)], ids=name)
def test_warm_start(solver, kind):
    M, structure = system(12, kind)
    b = np.ones(12)
    x = np.linalg.solve(M, b)
    start = jax.jit(lambda M, b, guess: solved(solver, M, b, structure, guess)[:2])
    got, steps = start(M, b, x)
    np.testing.assert_allclose(got, x, rtol=1e-10)
    assert steps <= 1
    got, _ = start(M, b, x + 1e-3 * np.cos(np.arange(12)))
    np.testing.assert_allclose(got, x, rtol=1e-9)


@pytest.mark.parametrize(
    "solver, axis", [(Dense(), 0), (GMRES(), 1), (CG(), 0), (CG(), 1), (BiCGStab(), 0), (NormalCG(), 1)], ids=name
)
def test_lanes(solver, axis):
    """Lanes of a batch axis: each its own answer and its own count, as alone; one is nan, one has a zero right side."""
    kind = "definite" if isinstance(solver, CG) else "general"
    M = np.stack([system(8, kind, seed)[0] for seed in range(4)])
    M[2] += 100 * np.eye(8)  # converges sooner
    M[3] = np.nan
    b = np.random.default_rng(2).normal(size=(4, 8))
    b[1] = 0.0

    def matvec(v):
        return {"x": jnp.moveaxis(jnp.einsum("bij,bj->bi", M, jnp.moveaxis(v["x"], axis, 0)), 0, axis)}

    def batched(b):
        out = solver.solve(Operator(matvec, space=Space(batch_axis=axis)), {"x": jnp.moveaxis(b, 0, axis)})
        return jnp.moveaxis(out.value["x"], axis, 0), out.num_steps

    x, steps = jax.jit(batched)(b)
    alone, counts = jax.jit(jax.vmap(lambda M, b: solved(solver, M, b)[:2]))(M, b)
    np.testing.assert_allclose(x[:3], [np.linalg.solve(M[i], b[i]) for i in range(3)], atol=1e-11)
    np.testing.assert_allclose(x[:3], alone[:3], atol=1e-14)
    np.testing.assert_array_equal(steps[:3], counts[:3])
    if not isinstance(solver, Dense):
        assert steps[2] < steps[0] and steps[1] == 0


@pytest.mark.parametrize("solver", [Dense(), GMRES(), CG(), ProxCG(), BiCGStab(), NormalCG()], ids=name)
def test_singular_is_never_a_small_residual(solver):
    """Whatever the answer, its residual shows that there is none."""
    M = np.diag([1.0, 2.0, 0.0])
    structure = ProxGradient(lambda v: v, lambda v: (np.eye(3) - M) @ v)
    x, _, _, condition = jax.jit(lambda b: solved(solver, M, b, lambda M: structure))(jnp.ones(3))
    assert not np.linalg.norm(M @ x - 1) < 0.9
    if isinstance(solver, Dense):
        assert condition == np.inf


def test_an_exactly_invariant_subspace_is_no_breakdown():
    """GMRES meets a new basis vector of length zero after one step; in float32 dividing by it gave nan elsewhere."""
    M = 3 * np.eye(5, dtype=np.float32)
    x, steps, _, _ = jax.jit(lambda b: solved(GMRES(), M, b))(np.arange(1.0, 6.0, dtype=np.float32))
    np.testing.assert_allclose(x, np.arange(1.0, 6.0) / 3, rtol=1e-6)
    assert steps == 2


@pytest.mark.parametrize("n", [1, 64, 65])
def test_dense_condition_number(n):
    """Exact in the 1-norm up to 64 unknowns, Hager's estimate beyond: within a factor of three from below."""
    M, _ = system(n, "general")
    M[:, 0] *= 1e-3
    _, _, norm, condition = jax.jit(lambda M: solved(Dense(), M, jnp.ones(n)))(M)
    exact = np.linalg.cond(M, 1)
    assert float(norm) == pytest.approx(np.linalg.norm(M, 1))
    assert exact / (1 + 1e-9 if n <= 64 else 3) <= float(condition) <= exact * (1 + 1e-9)


def test_estimated_condition_numbers_of_many_kinds():
    """From below, never a tenth, and exact where one direction dominates: that is where a guard must know."""
    n, rng = 70, np.random.default_rng(0)
    (U, _), (V, _) = (np.linalg.qr(rng.normal(size=(n, n))) for _ in range(2))
    spread = 10.0 ** rng.uniform(-4, 4, size=n)
    last = np.where(np.arange(n) == n - 1, 1e-9, 1.0)
    M = np.stack(
        [
            rng.normal(size=(n, n)),
            np.eye(n) + rng.normal(size=(n, n)) / 20,
            U * np.geomspace(1, 1e-6, n) @ V,
            rng.normal(size=(n, n)) * spread,
            rng.normal(size=(n, n)) * spread[:, None],
            np.triu(rng.normal(size=(n, n))) + 2 * np.eye(n),
            np.eye(n) + (rng.random((n, n)) < 2 / n) * rng.normal(size=(n, n)),
            U * last @ V,
        ]
    )
    condition = jax.jit(jax.vmap(lambda M: solved(Dense(), M, jnp.cos(jnp.arange(n) ** 2.0))[3]))(M)
    share = np.asarray(condition) / np.linalg.cond(M, 1)
    assert np.all(share <= 1 + 1e-6) and np.all(share > 0.1), share
    assert share[-1] == pytest.approx(1, rel=1e-6)


def test_inverse_needs_pivots():
    M = np.array([[[0.0, 1.0], [1.0, 0.0]], [[1e-20, 1.0], [1.0, 1.0]]])
    np.testing.assert_allclose(jax.jit(invert)(M), np.linalg.inv(M))


@pytest.mark.parametrize("shape, rank", [((7, 7), 3), ((7, 7), 7)])
def test_lsqr_is_the_pseudo_inverse(shape, rank):
    rng = np.random.default_rng(0)
    M = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    b = rng.normal(size=(2, shape[0]))
    b[1] = 0.0
    x = jax.jit(lambda b: lsqr(lambda v: v @ M.T, lambda v: v @ M, Space(batch_axis=0), b))(b)
    np.testing.assert_allclose(x, b @ np.linalg.pinv(M).T, atol=1e-9)


def test_auto_chooses_by_structure_size_and_place():
    prox = ProxGradient(lambda v: v, lambda v: v)

    def chosen(n, structure=General(), **space):
        return type(choose(Operator(lambda v: v, structure, Space(**space)), jnp.zeros(n)))

    assert [chosen(512), chosen(513), chosen(64, prox), chosen(65, prox)] == [Dense, Fallback, Dense, ProxCG]
    assert chosen((600, 64), batch_axis=0) is Dense  # 64 unknowns in each of 600 lanes
    assert chosen((600, 65), batch_axis=0) is Fallback
    columns = dataclasses.replace(prox, block=lambda index: None)
    assert chosen(3, columns) is chosen(10**6, columns) is RestrictedCholesky
    assert chosen((3, 3), columns, batch_axis=0) is Dense and chosen(3, columns, axis_name=("i",)) is ProxCG
    middle, large = (choose(Operator(lambda v: v), jnp.zeros(n)) for n in (2048, 2049))
    assert middle == Fallback(BiCGStab(max_steps=204), Dense()) and large == Fallback(BiCGStab(), NormalCG())
    assert choose(Operator(lambda v: v, space=Space(axis_name=("i",))), jnp.zeros(3)) == large


def test_transposing_keeps_what_is_known():
    M, structure = system(5, "prox")
    operator = Operator(lambda v: M @ v, structure(M)).transpose(lambda v: M.T @ v)
    x = jax.jit(lambda b: ProxCG().solve(operator, b).value)(jnp.ones(5))
    np.testing.assert_allclose(x, np.linalg.solve(M.T, np.ones(5)))
    assert Operator(lambda v: v, Symmetric()).transpose(lambda v: v).structure == Symmetric()


def test_negative_curvature_stops_prox_cg_unconverged():
    S = np.diag([0.5, 3.0])  # I - step·H with an H that is not positive: D S > I
    structure = ProxGradient(lambda v: v, lambda v: S @ v)
    x, _, _, _ = solved(ProxCG(), np.eye(2) - S, jnp.array([1.0, 1.0]), lambda M: structure)
    assert np.all(np.isfinite(x)) and np.linalg.norm((np.eye(2) - S) @ x - 1) > 0.1


def test_wrong_use():
    split = Operator(lambda v: v, space=Space(axis_name=("i",)))
    with pytest.raises(InputError, match="split over the mesh axes.*\n.*\nTry: .*GMRES"):
        Dense().solve(split, jnp.ones(2))
    with pytest.raises(InputError, match="structure General.*\n.*\nTry: "):
        ProxCG().solve(Operator(lambda v: v), jnp.ones(2))


def test_normal_cg_ends_at_a_least_squares_solution():
    """A singular, inconsistent system has none other; the residual is what is left of b outside the range."""
    M = np.random.default_rng(0).normal(size=(6, 6))
    M[:, 5] = M[:, 4]
    b = np.ones(6)
    x, steps, _, _ = jax.jit(lambda M, b: solved(NormalCG(), M, b))(M, b)
    expected = np.linalg.lstsq(M, b, rcond=None)[0]
    np.testing.assert_allclose(x, expected, atol=1e-9)  # from zero: that of least norm
    assert steps <= 2 * 12


def test_bicgstab_says_when_it_breaks_down():
    """For a rotation by a right angle the first curvature is zero: it stops at once, with the residual to show."""
    M = np.array([[0.0, 1.0], [-1.0, 0.0]])
    x, steps, _, _ = jax.jit(lambda M, b: solved(BiCGStab(), M, b))(M, np.array([1.0, 0.0]))
    assert steps == 2 and not np.linalg.norm(M @ x - np.array([1.0, 0.0])) < 0.9


@pytest.mark.parametrize("kind", ["prox", "transposed"])
@pytest.mark.parametrize("largest", [512, 4], ids=["direct", "beyond its size"])
def test_restricted_cholesky(kind, largest):
    """On the support alone; a support larger than allowed goes to ProxCG."""
    M, _ = system(30, kind)
    structure, b = with_columns(kind), np.cos(np.arange(30.0))
    operator = Operator(lambda v: M @ v, structure)
    out = jax.jit(lambda b: solved(RestrictedCholesky(largest), M, b, lambda M: structure))(b)
    x, steps, norm, condition = out
    np.testing.assert_allclose(x, np.linalg.solve(M, b), atol=1e-13 if largest > 30 else 1e-10)
    assert (steps == 2) if largest > 30 else (2 < steps <= 30)
    assert 0 < norm <= np.linalg.norm(M, 2) * (1 + 1e-12)
    assert 1 < condition <= np.linalg.cond(M)
    again = RestrictedCholesky(largest).solve(operator, jnp.asarray(b)).factors
    for transpose, matrix in ((False, M), (True, M.T)):
        np.testing.assert_allclose(jax.jit(again(transpose))(b), np.linalg.solve(matrix, b), atol=1e-10)


def test_restricted_cholesky_pads_to_the_smallest_size_that_holds_the_support():
    """Sizes 96 and 400 of n = 400: the block asked for says which one ran, for one system and for lanes."""
    asked, H = [], np.diag(np.linspace(0.1, 1.0, 400))

    def block(index):
        jax.debug.callback(lambda: asked.append(index.shape[0]))
        return jnp.asarray(H)[index[:, None], index]

    def answer(d, b):
        structure = ProxGradient(lambda v: d * v, lambda v: v - H @ v, block=block)
        return RestrictedCholesky(2048).solve(Operator(lambda v: v - d * (v - H @ v), structure), b).value

    counts = np.array([96, 97, 0, 385])
    d = (np.arange(400) < counts[:, None]).astype(float)
    b = np.random.default_rng(0).normal(size=(4, 400))
    expected = [np.linalg.solve(np.eye(400) - row[:, None] * (np.eye(400) - H), v) for row, v in zip(d, b, strict=True)]
    alone = jax.jit(answer)
    for i, size in enumerate((96, 400, 96, 400)):
        asked.clear()
        np.testing.assert_allclose(alone(d[i], b[i]), expected[i], atol=1e-13)
        jax.effects_barrier()
        assert asked == [size]
    asked.clear()
    np.testing.assert_allclose(jax.jit(jax.vmap(answer))(d[:3], b[:3]), expected[:3], atol=1e-13)
    jax.effects_barrier()
    assert set(asked) == {400}  # one size for all lanes, that of the largest support


def test_fallback_runs_only_where_a_lane_needs_it():
    """For rotations by a right angle BiCGStab breaks down at once."""
    rng, ran = np.random.default_rng(0), []
    easy, hard = np.eye(8) + 0.05 * rng.normal(size=(8, 8)), np.kron(np.eye(4), [[0.0, 1.0], [-1.0, 0.0]])
    b = rng.normal(size=(3, 8))

    @dataclasses.dataclass(frozen=True)
    class Second(LinearSolver):
        def solve(self, operator, b, guess=None):
            jax.debug.callback(lambda: ran.append(1))
            return GMRES().solve(operator, b, guess)

    def answer(M, b):
        out = Fallback(BiCGStab(), Second()).solve(Operator(lambda v: M @ v), b)
        return out.value, out.num_steps

    lanes = jax.jit(jax.vmap(answer))
    for matrices, expected in (([easy] * 3, 0), ([easy, hard, easy], 1)):
        M = np.stack(matrices)
        ran.clear()
        x, steps = lanes(M, b)
        jax.effects_barrier()
        np.testing.assert_allclose(x, np.linalg.solve(M, b[..., None])[..., 0], atol=1e-11)
        assert len(ran) == expected
    np.testing.assert_array_equal(steps[0], answer(easy, b[0])[1])


def test_fixed_point_adjoint_refuses_newton():
    with pytest.raises(InputError, match="SemismoothNewton follows no map.*\n.*\nTry: "):
        FixedPointAdjoint(SemismoothNewton())
