"""Linear operators W with I - W strongly monotone: W = (1 - m) I - AᵀA + B - Bᵀ, dense or a periodic convolution.

Both are a matrix, or one matrix for each frequency: what is done with W, its inverse say, is done with these.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit.prox.base import matmul


class MonotoneOperator(abc.ABC):
    """W = (1 - m) I - AᵀA + B - Bᵀ: yᵀ(I - W) y >= m‖y‖², whatever A and B are.

    A final class says how a kernel becomes matrices, and how these multiply a state.
    """

    A: Any
    B: Any
    m: Any
    rank: ClassVar[int]
    """The number of axes of a state."""
    output_axis: ClassVar[int]
    input_axis: ClassVar[int]
    """Of a kernel."""

    def __post_init__(self) -> None:
        where, m = f"layers.{type(self).__name__}", self.m
        if not (isinstance(m, int | float) and 0 < m < math.inf):
            found, meaning = f"m is {m!r}.", "It must be a Python number > 0: I - W is at least m, so that z is unique."
            raise InputError(message(f"{where}(m=...)", found, meaning, "m=1.0"))
        A, B = jnp.shape(self.A), jnp.shape(self.B)
        kernel = self.rank + 1
        if not len(A) == len(B) == kernel or 0 in A + B or not A[-1] == A[-2] == B[-1] == B[-2]:
            expected = "(n, n)" if self.rank == 1 else "(height, width, c, c)"
            meaning = f"Both must be {expected}, with at least one entry."
            raise InputError(
                message(f"{where}(A, B)", f"A has shape {A}, B {B}.", meaning, "MonotoneDEQ.init(key, ...)")
            )

    @property
    def features(self) -> int:
        """The length of the last axis of a state."""
        return jnp.shape(self.A)[-1]

    @abc.abstractmethod
    def matrices_of(self, kernel: Any, shape: tuple[int, ...]) -> jax.Array:
        """The matrices ``(..., features, inputs)`` of a kernel, on states of this shape."""

    @abc.abstractmethod
    def multiply(self, matrices: jax.Array, z: jax.Array) -> jax.Array:
        """Their product with a state, or with a batch of states."""

    def sample_shape(self, z: Any) -> tuple[int, ...]:
        """The shape of a state without that of a batch."""
        return jnp.shape(z)[jnp.ndim(z) - self.rank :]

    def matrices(self, shape: tuple[int, ...]) -> jax.Array:
        """Those of W."""
        A, B = (self.matrices_of(x, shape) for x in (self.A, self.B))
        return (1 - self.m) * jnp.eye(self.features, dtype=A.dtype) - matmul(adjoint(A), A) + B - adjoint(B)

    def __call__(self, z: Any) -> jax.Array:
        """W z, of a state or of a batch of states."""
        return self.multiply(self.matrices(self.sample_shape(z)), jnp.asarray(z))


@data
class MonotoneDense(MonotoneOperator):
    """W = (1 - m) I - AᵀA + B - Bᵀ, a matrix.

    Args:
        A: ``(n, n)``.
        B: ``(n, n)``.
        m: positive. Static.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> W = nsi.layers.MonotoneDense(A=jnp.zeros((2, 2)), B=jnp.array([[0.0, 3.0], [0.0, 0.0]]), m=0.5)
        >>> W(jnp.array([1.0, 0.0])).tolist()
        [0.5, -3.0]
    """

    A: Any
    B: Any
    m: float = static(1.0)

    rank, output_axis, input_axis = 1, 0, 1

    def matrices_of(self, kernel: Any, shape: tuple[int, ...]) -> jax.Array:
        """The kernel itself."""
        del shape
        return jnp.asarray(kernel)

    def multiply(self, matrices: jax.Array, z: jax.Array) -> jax.Array:
        """A product with a matrix."""
        return matmul(z, matrices.T)


@data
class MonotoneConv(MonotoneOperator):
    """W = (1 - m) I - AᵀA + B - Bᵀ with A and B convolutions of images ``(height, width, c)`` that wrap around.

    Args:
        A: kernel ``(kernel height, kernel width, c, c)``, inputs before outputs.
        B: likewise; of another size if you like.
        m: positive. Static.

    Cost:
        Two Fourier transforms of every channel a product, and c² numbers for each of half the pixels.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> W = nsi.layers.MonotoneConv(A=jnp.ones((1, 1, 1, 1)), B=jnp.ones((3, 3, 1, 1)), m=1.0)
        >>> W(jnp.ones((4, 5, 1))).round(5)[0, 0].tolist()
        [-1.0]
    """

    A: Any
    B: Any
    m: float = static(1.0)

    rank, output_axis, input_axis = 3, -1, -2

    def matrices_of(self, kernel: Any, shape: tuple[int, ...]) -> jax.Array:
        """A matrix for each frequency, ``(height, width // 2 + 1, features, inputs)``."""
        height, width = shape[0], shape[1]
        rows, columns = (-(jnp.arange(k) - (k - 1) // 2) % n for k, n in zip(kernel.shape[:2], shape[:2], strict=True))
        full = jnp.zeros((height, width, *kernel.shape[2:]), kernel.dtype).at[rows[:, None], columns].add(kernel)
        return jnp.fft.rfft2(full, axes=(0, 1)).swapaxes(-1, -2)

    def multiply(self, matrices: jax.Array, z: jax.Array) -> jax.Array:
        """A product for each frequency."""
        waves = jnp.fft.rfft2(z, axes=(-3, -2))
        product = jnp.einsum("hwij,...hwj->...hwi", matrices, waves, precision=lax.Precision.HIGHEST)
        return jnp.fft.irfft2(product, s=z.shape[-3:-1], axes=(-3, -2))


def adjoint(matrices: jax.Array) -> jax.Array:
    """The conjugate transposes."""
    return jnp.conj(jnp.swapaxes(matrices, -1, -2))
