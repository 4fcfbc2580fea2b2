"""Samplers: torch optimizers that draw from the local posterior."""
