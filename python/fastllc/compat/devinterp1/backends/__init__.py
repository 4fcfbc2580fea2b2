"""Where devinterp 1 keeps its loops."""
