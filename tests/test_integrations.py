"""What the adapters share: the error for a framework that is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tide_integrations._framework import needs


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make an importable module of a source text."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source, "utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def test_a_missing_framework_names_its_extra() -> None:
    with pytest.raises(ImportError) as caught, needs("sailboat"):
        import sailboat.widgets  # type: ignore[import-not-found] # noqa: F401
    assert caught.value.name == "sailboat"
    assert "tide.integrations.sailboat needs sailboat" in str(caught.value)
    assert "pip install -e '.[sailboat]'" in str(caught.value)
    assert "pip install tide" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_a_framework_itself_misses_is_told_as_it_is(
    module: Callable[[str, str], None],
) -> None:
    module("sailboat", "import rudder")
    with pytest.raises(ModuleNotFoundError, match="'rudder'") as caught, needs("sailboat"):
        import sailboat  # noqa: F401
    assert "pip" not in str(caught.value)


def test_a_framework_that_lacks_a_part_is_told_as_it_is(
    module: Callable[[str, str], None],
) -> None:
    module("sailboat", "")
    missing = pytest.raises(ModuleNotFoundError, match=r"sailboat\.widgets")
    with missing as caught, needs("sailboat"):
        import sailboat.widgets  # noqa: F401
    assert "pip" not in str(caught.value)


def test_a_name_that_a_framework_lacks_is_told_as_it_is(
    module: Callable[[str, str], None],
) -> None:
    module("sailboat", "")
    with pytest.raises(ImportError, match="cannot import name 'Mast'"), needs("sailboat"):
        from sailboat import Mast  # noqa: F401


def test_an_installed_framework_is_just_imported(module: Callable[[str, str], None]) -> None:
    module("sailboat", "Mast = 'tall'")
    with needs("sailboat"):
        from sailboat import Mast
    assert Mast == "tall"
