"""Whole LLC estimates, ours and the others', with the same settings in one run."""
