"""Splittings: how a problem becomes a fixed-point equation."""

from nsimplicit.splittings.admm import ADMM as ADMM
from nsimplicit.splittings.base import Splitting as Splitting
from nsimplicit.splittings.chambolle_pock import ChambollePock as ChambollePock
from nsimplicit.splittings.davis_yin import DavisYin as DavisYin
from nsimplicit.splittings.douglas_rachford import DouglasRachford as DouglasRachford
from nsimplicit.splittings.forward_backward import ForwardBackward as ForwardBackward

__all__ = ["ADMM", "ChambollePock", "DavisYin", "DouglasRachford", "ForwardBackward", "Splitting"]
