"""What is installed: version, metadata, the files in the wheel, and the pins that must agree."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nsimplicit as nsi

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_version_is_written_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", nsi.__version__)
    pattern = re.compile(r"""__version__\s*=\s*["']""")
    assert [p.name for p in sorted(ROOT.glob("nsimplicit/**/*.py")) if pattern.search(p.read_text())] == ["_version.py"]
    assert f"## [{nsi.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_installed_metadata():
    metadata = importlib.metadata.metadata("nsimplicit")
    assert metadata["Version"] == nsi.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    runtime = {r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r}
    assert {re.match(r"\w+", r).group() for r in runtime} == {"jax", "jaxlib", "optax"}


def test_license_is_the_whole_apache_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability." in text


def test_types_are_advertised():
    assert (ROOT / "nsimplicit" / "py.typed").is_file()


def test_precommit_runs_the_pinned_tools():
    pinned = {r for r in PROJECT["project"]["optional-dependencies"]["dev"] if r.startswith("ruff==")}
    hooks = set(re.findall(r'"(ruff==[^"]+)"', (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")))
    assert hooks == pinned


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    result = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"nsimplicit-{nsi.__version__}.dist-info/"
    kinds = "**/*.py", "**/*.pyi", "py.typed"
    sources = {p.relative_to(ROOT).as_posix() for kind in kinds for p in (ROOT / "nsimplicit").glob(kind)}
    assert {n for n in names if not n.startswith(info)} == sources
    assert info + "licenses/LICENSE" in names
