"""Text that stands in a page packed is read back, and nothing of it ends the element that holds it."""

import pytest

from lib.figures import packed

TEXT = "a </script> é ≈ " * 500


def test_what_a_page_holds_is_read_back():
    held = packed.packed(TEXT)
    page = f"<p>{packed.element('other', packed.packed('x'))}{packed.element('mine', held)}</p>"
    assert len(held) < len(TEXT) / 10 and "<" not in held and held == packed.packed(TEXT)
    assert (packed.held(page, "mine"), packed.held(page, "other")) == (TEXT, "x")
    with pytest.raises(ValueError, match="this page has no element 'gone'"):
        packed.held(page, "gone")
