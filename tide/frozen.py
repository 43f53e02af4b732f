"""Documents that can be handed to many readers, since none of them can change one."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenList", "freeze", "thaw"]


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError(
        "this is a shared document of a LiveQuery, which can't be changed in place; "
        "use put() or update() of the collection, or change a copy: doc.copy()"
    )


class FrozenDict(dict[str, Any]):
    """A dict that can't be changed; ``copy()`` gives a plain one, changeable to its depth."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def copy(self) -> dict[str, Any]:
        """A copy of your own, in plain dicts and lists."""
        plain: dict[str, Any] = thaw(self)
        return plain

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:  # so that pickling gives a plain dict
        return dict, (self.copy(),)


class FrozenList(list[Any]):
    """A list that can't be changed; ``copy()`` gives a plain one, changeable to its depth."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = _refuse
    pop = remove = reverse = sort = _refuse

    def copy(self) -> list[Any]:
        """A copy of your own, in plain dicts and lists."""
        plain: list[Any] = thaw(self)
        return plain

    def __copy__(self) -> list[Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.copy(),)


def freeze(value: Any) -> Any:
    """*value*, of JSON, with each dict and list in it frozen; at most 64 deep, as documents are."""
    if isinstance(value, dict):
        return FrozenDict({key: _frozen(part) for key, part in value.items()})
    if isinstance(value, list):
        return FrozenList([_frozen(part) for part in value])
    return value


def _frozen(part: Any) -> Any:
    return freeze(part) if isinstance(part, dict | list) else part


def thaw(value: Any) -> Any:
    """*value* in plain dicts and lists."""
    if isinstance(value, dict):
        return {key: thaw(part) for key, part in value.items()}
    if isinstance(value, list):
        return [thaw(part) for part in value]
    return value
