"""One table per menu.

Each module says which public names its rows cover, as a user writes them after ``nsi.``, for example
``COVERED = frozenset({"relu", "prox.L1"})``.
"""
