"""The virtual registry: a registry computed from rules and other registries."""
