"""Layers: problems that people solve inside a model, with their derivatives."""

__all__: list[str] = []
