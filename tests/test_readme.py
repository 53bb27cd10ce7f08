"""The README's programs run, and print what it says they print, up to the digits that vary by machine."""

import contextlib
import io
import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.M | re.S)
NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")


def comparable(text: str) -> list[str]:
    """Words, with numbers below 1e-3 (residuals, rounding) masked and others to two digits."""

    def mask(match: re.Match[str]) -> str:
        value = float(match[0].rstrip("."))
        return "#" if abs(value) < 1e-3 else f"{value:.2g}"

    return [" ".join(NUMBER.sub(mask, line).split()) for line in text.strip().splitlines()]


def test_programs_print_what_the_readme_shows():
    blocks = BLOCK.findall(README.read_text())
    programs = [body for kind, body in blocks if kind == "python"]
    assert len(programs) >= 3
    names: dict = {}
    for (kind, program), (next_kind, shown) in zip(blocks, blocks[1:], strict=False):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "README.md", "exec"), names)
        assert next_kind == "text"
        assert comparable(printed.getvalue()) == comparable(shown)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    for link in links:
        assert link.startswith("http") or (README.parent / link).exists(), link
