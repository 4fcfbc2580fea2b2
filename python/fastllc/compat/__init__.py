"""Other packages' interfaces, on our samplers and engine."""
