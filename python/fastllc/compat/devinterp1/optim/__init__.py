"""Samplers under their names and arguments of devinterp 1."""

from fastllc.compat.devinterp1.optim.sgld import SGLD
from fastllc.compat.devinterp1.optim.sgmcmc import SGMCMC, SamplingMethodLiteral
from fastllc.compat.devinterp1.optim.sgnht import SGNHT

__all__ = ["SGLD", "SGMCMC", "SGNHT", "SamplingMethodLiteral"]
