"""Frozen dataclasses, of two kinds: data, which JAX sees through, and configuration, which it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def data(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass pytree, compared by identity.

    Fields are leaves (differentiated like any argument) unless declared with ``static()``.
    ``__post_init__`` sees what a user passed. It does not run when JAX rebuilds an object: a
    cotangent, a batch or a tree of axes has the same structure, and no sign or shape to check.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    _share(cls, __repr__=_repr)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    statics = tuple(f.name for f in fields if f.metadata.get("static"))
    keys = tuple(map(jax.tree_util.GetAttrKey, leaves))

    def aux(self: T) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in statics)

    def flatten(self: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(self, name) for name in leaves), aux(self)

    def flatten_with_keys(self: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(zip(keys, flatten(self)[0], strict=True)), aux(self)

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> T:
        self = object.__new__(cls)
        self.__dict__.update(zip(leaves, children, strict=True), **dict(zip(statics, aux, strict=True)))
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass compared by its fields: the configuration of a computation.

    A plain ``dataclass(frozen=True)`` would do, but compiles six methods for each of forty classes
    when the package is imported; these share three of them.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    _share(cls, __repr__=_repr, __eq__=_eq, __hash__=_hash)
    return cls


def _share(cls: type, **methods: Any) -> None:
    for name, method in methods.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.compare)


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


def static(default: Any = dataclasses.MISSING, *, kw_only: bool = True) -> Any:
    """A field of :func:`data` classes that is configuration, not a leaf; it must be hashable."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"static": True})
