"""HTTP: the registry API for any registry, and the admin port."""
