"""torchdeq in a process of its own: it needs torch, and torch's threads must not mix with XLA's.

NSIMPLICIT_TORCH_PYTHON names a Python that has torch and torchdeq, if this one has not.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np

CHILD = """
import sys, time
import numpy as np, torch, torchdeq
data = np.load(sys.argv[1])
W, U, b = (torch.tensor(data[k], requires_grad=True) for k in "WUb")
x, y, tol = torch.tensor(data["x"]), torch.tensor(data["y"]), float(data["tol"])
layers = {}
for name in ("fixed_point_iter", "anderson"):
    # its test is relative to the new iterate alone; backward that of the others has the right-hand side beside it
    options = dict(f_solver=name, b_solver="fixed_point_iter", f_stop_mode="rel", b_stop_mode="rel", ift=True)
    layers[name] = torchdeq.get_deq(**options, f_tol=tol, b_tol=1.5 * tol, f_max_iter=50, b_max_iter=50).train()
def run(name, act):
    W.grad = U.grad = b.grad = None
    inner = x @ U + b
    z, info = layers[name](lambda z: getattr(torch, act)(z @ W + inner), torch.zeros_like(inner))
    loss = ((z[-1] - y) ** 2).mean()
    loss.backward()
    return loss, int(info["nstep"].max())
print("ready", flush=True)
for line in sys.stdin:
    name, act, out = line.split()
    loss, count = run(name, act)
    if out != "-":
        np.savez(out, W=W.grad, U=U.grad, b=b.grad, loss=loss.detach(), steps=count)
    print("done", flush=True)
"""


class Torchdeq:
    """Told by a line on a pipe (0.05 ms) to make a step.

    Args:
        P: W, U and b.
        x: the inputs.
        y: the targets.
        tol: where both solves stop.
    """

    def __init__(self, P, x, y, tol):
        python = os.environ.get("NSIMPLICIT_TORCH_PYTHON", sys.executable)
        found = subprocess.run([python, "-c", "import torch, torchdeq"], capture_output=True, text=True)
        if found.returncode:
            raise ImportError(found.stderr.strip().splitlines()[-1], name="torchdeq")
        self.folder = tempfile.TemporaryDirectory()
        data = {k: np.asarray(v, np.float32) for k, v in {**P, "x": x, "y": y}.items()}
        np.savez(f"{self.folder.name}/problem.npz", **{**data, "tol": np.asarray(tol)})  # pyright: ignore[reportArgumentType]
        command = [python, "-c", CHILD, f"{self.folder.name}/problem.npz"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._wait()

    def run(self, name, act, out="-"):
        """One step with this forward solver and activation; ``out``: a file for its gradient."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {act} {out}\n")
        self.process.stdin.flush()
        self._wait()

    def _wait(self):
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise ChildProcessError("the torch process ended")

    def gradient(self, name, act):
        """What a step gives: the loss, the steps of the forward solve, and the gradient."""
        path = f"{self.folder.name}/gradient.npz"
        self.run(name, act, path)
        found = np.load(path)
        return (found["loss"], found["steps"]), {k: found[k] for k in "WUb"}

    def close(self):
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()
