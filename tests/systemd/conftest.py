"""The order of these tests among all others."""

import pytest

LONGEST = "test_on_a_real_systemd"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test of all begins first, so that nobody waits for it in the end."""
    items.sort(key=lambda item: item.name != LONGEST)
