"""The published benchmark of deep linear networks: LLC estimates against the exact coefficients."""
