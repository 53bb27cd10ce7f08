"""Splittings: how a problem becomes a fixed-point equation."""

from nsimplicit.splittings.admm import ADMM as ADMM
from nsimplicit.splittings.base import Splitting as Splitting
from nsimplicit.splittings.douglas_rachford import DouglasRachford as DouglasRachford
from nsimplicit.splittings.forward_backward import ForwardBackward as ForwardBackward

__all__ = ["ADMM", "DouglasRachford", "ForwardBackward", "Splitting"]
