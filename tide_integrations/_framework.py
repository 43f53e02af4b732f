"""The error for a UI framework that is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["needs"]


@contextlib.contextmanager
def needs(framework: str) -> Iterator[None]:
    """Around an adapter's imports of *framework*: tell how to install it if it is missing.

    That any other module is missing is another problem, and is told as it is.

    Raises:
        ImportError: *framework* is not installed; the message names the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != framework:
            raise
        raise ImportError(
            f"tide.integrations.{framework} needs {framework}, which is not installed; in your "
            f"checkout of tide, run: pip install -e '.[{framework}]'",
            name=framework,
        ) from error
