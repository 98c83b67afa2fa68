"""What the tests of all studies share."""

import pytest

from lib.claims import court, intervals
from lib.figures import widgets


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """Intervals from fewer bootstrap draws: these tests are of what is claimed, not of how wide an interval is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(court, "parts", lambda *given, **more: intervals.parts(*given, **more | {"draws": 40}))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_dots():
    """Views drawn in less time: these tests are of what is shown, not of how finely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widgets, "DPI", 40)
        yield
