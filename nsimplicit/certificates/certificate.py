"""What a certificate says, as data and as one screen."""

from __future__ import annotations

import html
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static

VERDICTS = {1: "regular", 2: "regular modulo a kernel", 0: "undecided", -1: "singular"}
MEANING = {
    1: "Every selection gives an invertible system: the nonsmooth implicit function theorem applies, and every "
    "derivative computed here is an element of a conservative Jacobian of the solution.",
    2: "All selections share a kernel, and are invertible beside it: the solution is determined up to the kernel, "
    "and derivatives exist for whatever does not depend on it.",
    0: "Neither proved nor refuted. Derivatives may be right; nothing here says so.",
    -1: "Some selection gives a singular system, so the theorem does not apply: a small change of the data may "
    "move the solution at any rate, or to several places.",
}


@data
class Certificate:
    """Whether the derivative of an equation is invertible for every selection of its active kinks.

    Args:
        code: int32; 1 regular, 2 regular modulo a kernel, 0 undecided, -1 singular.
        sigma_min: the smallest singular value over all selections, in the units of the equation's
            derivative: exact for up to 8 kinks, a lower bound beyond, nan where none is known.
        margin: how far the deciding test was from failing, in (0, 1]; nan where it has no number.
        witness: array (num_kinks,), selections that give a singular system; nan where there is none.
        kernel: array (n, r), orthonormal: what no selection sees; r = 0 but for code 2.
        clarke: int32, the same verdict for the Clarke Jacobian of the *function*, whose branches only
            occur together where they can; 0 also where it was not looked at.
        num_kinks: the number of active kinks that matter.
        method: what decided.
        reason: what was in the way, or more about the verdict.
        names: the active kinks, ``"relu at model.py:12"``.
        tolerance: the largest distance within which a kink counted as active, in the units of its operands.
        bound: what sigma_min is: ``"exact"``, ``"lower bound"`` or ``"no bound"``.
    """

    code: jax.Array
    sigma_min: jax.Array
    margin: jax.Array
    witness: jax.Array
    kernel: jax.Array
    clarke: jax.Array
    num_kinks: int = static()
    method: str = static()
    reason: str = static("")
    names: tuple[str, ...] = static(())
    tolerance: float = static(0.0)
    bound: str = static("no bound")

    @property
    def verdict(self) -> str:
        """The word for ``code``; needs a concrete value."""
        if isinstance(self.code, Tracer):
            raise InputError(
                message(
                    "Certificate.verdict",
                    "the certificate is traced (inside jit, vmap or grad), so its verdict has no word yet.",
                    "A word cannot depend on values that are not known when tracing.",
                    "use .code, an integer array: 1 regular, 2 modulo a kernel, 0 undecided, -1 singular",
                    "return the certificate from the jitted function and read it outside",
                )
            )
        return VERDICTS[int(self.code)]

    def __str__(self) -> str:
        """One screen."""
        body = "\n".join(f"  {label:<10} {text}" for label, text in self._rows())
        return f"certificate: {self.verdict}\n{body}\n  {MEANING[int(self.code)]}"

    def __repr__(self) -> str:
        """As ``str`` where the values are known."""
        return "Certificate(traced)" if isinstance(self.code, Tracer) else str(self)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{label}</th><td>{html.escape(text)}</td></tr>" for label, text in self._rows())
        meaning = MEANING[int(self.code)]
        return f"<p><b>certificate: {self.verdict}</b></p><table>{rows}</table><p>{html.escape(meaning)}</p>"

    def _rows(self) -> list[tuple[str, str]]:
        shown = ", ".join(self.names[:6]) + (f" and {len(self.names) - 6} more" if len(self.names) > 6 else "")
        kinks = f"{self.num_kinks} active within {self.tolerance:.1e}" + (f": {shown}" if shown else "")
        rows = [("kinks", kinks), ("method", self.method)]
        if not np.isnan(self.sigma_min):
            rows.append(("sigma_min", f"{float(self.sigma_min):.3g} over all selections ({self.bound})"))
        if not np.isnan(self.margin):
            rows.append(("margin", f"{float(self.margin):.2g}"))
        if self.witness.size and not np.isnan(np.asarray(self.witness)).any():
            rows.append(("witness", f"singular at selections {np.round(np.asarray(self.witness), 4).tolist()}"))
        if self.kernel.shape[1]:
            rows.append(("kernel", _vectors(np.asarray(self.kernel))))
        if int(self.clarke):
            rows.append(("Clarke", f"the Clarke Jacobian of the function is {VERDICTS[int(self.clarke)]}"))
        if self.reason:
            rows.append(("because", self.reason))
        return rows


def _vectors(kernel: np.ndarray) -> str:
    shown = [np.array2string(v, precision=3, threshold=8, edgeitems=3, suppress_small=True) for v in kernel.T[:2]]
    return ", ".join(shown) + (f" and {kernel.shape[1] - 2} more" if kernel.shape[1] > 2 else "")


def certificate(code: int, form_size: int, num_kinks: int, method: str, **fields: Any) -> Certificate:
    """A certificate on the host; what is not given is unknown."""
    arrays: dict[str, Any] = {
        "sigma_min": np.nan,
        "margin": np.nan,
        "witness": np.full(num_kinks, np.nan),
        "kernel": np.zeros((form_size, 0)),
    }
    arrays |= {name: np.asarray(fields.pop(name)) for name in arrays if name in fields}
    arrays |= {"code": np.int32(code), "clarke": np.int32(fields.pop("clarke", 0))}
    return Certificate(**arrays, num_kinks=num_kinks, method=method, **fields)
