"""Estimates of devinterp 1 and their callbacks."""
