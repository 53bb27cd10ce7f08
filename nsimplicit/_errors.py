"""The errors nsimplicit raises, and the one shape their messages have."""


class NsimplicitError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(NsimplicitError, ValueError):
    """An argument that cannot work: shape, dtype, tree, name, sign. Raised when traced."""


class DerivativeError(NsimplicitError, RuntimeError):
    """A derivative that was asked for and cannot be given, or whose guard failed."""


def message(where: str, found: str, meaning: str, *tries: str) -> str:
    """Format an error the way every error of this package reads.

    Args:
        where: the call, as the user wrote it, e.g. ``relu(selection=1.5)``.
        found: what was found, with the numbers.
        meaning: one sentence: what that means.
        *tries: what to do next, most likely fix first, each as code where possible.

    Returns:
        The three-line message of the style guide.
    """
    lines = [f"`{where}`: {found}", meaning]
    if tries:
        lines.append("Try: " + "; ".join(f"({chr(97 + i)}) {t}" for i, t in enumerate(tries)) + ".")
    return "\n".join(lines)
