"""One file per quantity. Each reads the traces of chains that the engine has drawn."""
