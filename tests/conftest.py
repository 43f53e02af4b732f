"""What all tests share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contracts")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are async run in asyncio, all in one event loop."""
    return "asyncio"
