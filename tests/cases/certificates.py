"""What the tests of programs as data and of certificates cover."""

COVERED = frozenset(
    {
        "Certificate",
        "KinkReport",
        "calculus.Attractor",
        "calculus.JacobianSet",
        "calculus.NormalForm",
        "calculus.clarke_jacobian",
        "calculus.conservative_jacobian",
        "calculus.directional_derivative",
        "calculus.excess",
        "calculus.implicit_jacobian",
        "calculus.normal_form",
        "calculus.piggyback_jacobian",
        "certify",
        "guards.AllSelections",
        "guards.Identified",
        "kinks",
    }
)
