"""What tests of programs share."""

from collections.abc import Iterator

import pytest

from tests.sdk.programs import Fleet, fake_fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Fake engines where the examples expect vLLM."""
    with fake_fleet() as running:
        yield running
