"""The configuration: TOML and environment into frozen values, every problem reported at once."""
