"""How the main job talks: progress while it runs, tables, and numbers for JSON."""

import resource
import sys
import time


class Progress:
    """Lines with the time since the start; in a terminal, also a bar that is drawn in place."""

    def __init__(self):
        self.began = time.perf_counter()
        self.open = False

    @property
    def seconds(self):
        return time.perf_counter() - self.began

    def __call__(self, text):
        print(("\n" if self.open else "") + f"[{self.seconds:6.1f} s] {text}", flush=True)
        self.open = False

    def bar(self, name, done, total, text):
        line = f"[{self.seconds:6.1f} s] {name:18} {'#' * (20 * done // total):20} {done:3}/{total}  {text}"
        if sys.stdout.isatty():
            print("\r" + line, end="", flush=True)
            self.open = True
        elif done % 20 == 0 or done == total:
            print(line, flush=True)


def report(result):
    """The tables, in words."""
    one, knot = result["hypergradient"], result["breakpoint"]
    print(f"\nd held-out error / d log weight at weight {one['weight']:.4f}, {one['support']} coefficients nonzero")
    print(f"  closed form on the support          {one['closed_form']: .15f}")
    print(f"  finite difference of scikit-learn   {one['finite_difference']: .15f}")
    print("\nFactor per iteration      iterates   derivatives   spectral radius of T' at the solution")
    for name, seen in result["convergence"].items():
        local = "not formed" if seen["local_rate"] is None else f"{seen['local_rate']:.4f}"
        print(f"  {name:20}   {seen['iterate_rate']:8.4f}   {seen['derivative_rate']:11.4f}   {local}")
    print("\nTuning                    weight   held-out error   from   solver iterations in all")
    for name, path in result["tuning"].items():
        first, last = path[0]["held_out_error"], path[-1]
        print(
            f"  {name:18} {last['weight']:10.4f}   {last['held_out_error']:14.6f} {first:8.4f}"
            f"   {sum(row['iterations'] for row in path)}"
        )
    print(
        f"\nAt the breakpoint {knot['knot'].weight:.6f} of the path, d beta / d weight of the coefficient that enters"
    )
    show = {f"selection {q:g}": slope for q, slope in knot["selected"].items()}
    show |= {f"scikit-learn, from the {side}": slope for side, slope in knot["sides"].items()}
    show |= {f"{name}, kink left to rounding": slope for name, slope in knot["program"].items()}
    for text, slope in show.items():
        print(f"  {text:45} {slope[knot['knot'].entering]: .10f}")


def plain(x):
    """The same in types JSON knows."""
    if isinstance(x, dict):
        return {str(key): plain(value) for key, value in x.items()}
    if hasattr(x, "_asdict"):
        return plain(x._asdict())
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    return x.tolist() if hasattr(x, "tolist") else x


def peak_mb():
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
