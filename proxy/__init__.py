"""manifuse: a registry proxy that merges arch-specific images into one index at pull time."""

__version__ = "0.1.0"
