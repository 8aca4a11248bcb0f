"""The specifications as values and pure functions: no clock, event loop, disk, network or randomness."""
