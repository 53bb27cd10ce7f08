"""Frozen dataclasses: data, which JAX sees through; configuration, compared by value; records, which hold anything.

A plain ``dataclass(frozen=True)`` writes and compiles up to six methods for each class when the package is
imported. There are about ninety classes: these share their methods, and get an ``__init__`` on first use.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
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
    cls = record(cls)
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
    """Make a class a frozen dataclass compared by its fields: the configuration of a computation."""
    return _share(record(cls), __eq__=_eq, __hash__=_hash)


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass compared by identity, which JAX does not see through."""
    cls = dataclasses.dataclass(init=False, eq=False, repr=False)(cls)
    _share(cls, __init__=_first_init, __repr__=_repr, __setattr__=_refuse, __delattr__=_refuse)
    return _share(cls, __signature__=_Signature())


def static(default: Any = dataclasses.MISSING, *, kw_only: bool = True) -> Any:
    """A field of :func:`data` classes that is configuration, not a leaf; it must be hashable."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"static": True})


def _share(cls: type[T], **members: Any) -> type[T]:
    for name, member in members.items():
        if name not in cls.__dict__ or (name == "__hash__" and cls.__hash__ is None):
            setattr(cls, name, member)
    return cls


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    _make_init(type(self))
    self.__init__(*args, **kwargs)


def _make_init(cls: type) -> None:
    """Give a class the ``__init__`` that dataclasses writes for its fields."""
    fields = [(f.name, f.type, copy.copy(f)) for f in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    namespace = {"__post_init__": None} if hasattr(cls, "__post_init__") else {}
    made = dataclasses.make_dataclass(cls.__name__, fields, namespace=namespace, frozen=True, eq=False, repr=False)
    cls.__init__ = made.__init__


class _Signature:
    """What ``inspect.signature`` and ``help`` show, also before the first object is made."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if owner.__init__ is _first_init:
            _make_init(owner)
        signature = inspect.signature(owner.__init__)
        parameters = list(signature.parameters.values())[1:]
        return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def _refuse(self: Any, name: str, value: Any = None) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}: use dataclasses.replace")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.compare)


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))
