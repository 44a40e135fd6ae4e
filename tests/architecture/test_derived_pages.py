"""Pages that are written from the code equal it: stale reference pages send people the wrong way."""

from pathlib import Path

import pytest

from documentation.generate import ROOT, pages


@pytest.mark.parametrize("path", sorted(pages()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_derived_page_is_what_make_docs_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"
