"""The sessions in the documentation run, and print what it says they print; its links lead somewhere."""

import doctest
import pathlib
import re

import pytest

from tests.test_readme import comparable

DOCS = sorted((pathlib.Path(__file__).parents[1] / "docs").glob("*.md"))
SESSION = re.compile(r"^```python\n(>>>.*?)^```", re.M | re.S)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


class Checker(doctest.OutputChecker):
    """Compares words, wherever lines end, and numbers up to the digits that vary by machine."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """A kink names the file it is in: ``<stdin>`` where one types, ``<doctest ...>`` here."""
        got = re.sub(r"<doctest [^>]*>", "<stdin>", got)
        return words(want) == words(got)


def words(text: str) -> str:
    return " ".join(" ".join(comparable(text)).split())


def anchors(page: pathlib.Path) -> set[str]:
    """The names GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [p for p in DOCS if SESSION.search(p.read_text(encoding="utf-8"))], ids=lambda p: p.stem
)
def test_sessions_print_what_the_page_shows(page):
    text = page.read_text(encoding="utf-8")
    assert text.count(">>>") == sum(session.count(">>>") for session in SESSION.findall(text)), "a session not found"
    session = doctest.DocTestParser().get_doctest("\n".join(SESSION.findall(text)), {}, page.stem, str(page), 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner(checker=Checker(), verbose=False).run(session, out=complaints.append)
    assert result.attempted and not result.failed, "".join(complaints)


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for link in (a or b for a, b in LINK.findall(page.read_text(encoding="utf-8"))):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
