"""What all checks need: 64-bit numbers."""

from __future__ import annotations

import jax

from nsimplicit._errors import InputError, message


def require_64(where: str) -> None:
    """Raise where 64-bit numbers are off."""
    if not jax.config.read("jax_enable_x64"):
        raise InputError(
            message(
                f"testing.{where}(...)",
                "64-bit numbers are off.",
                "The laws are compared to rounding, and derivatives with differences, for which float32 has no digits.",
                'jax.config.update("jax_enable_x64", True)',
                "with jax.enable_x64(True): around the call",
            )
        )
