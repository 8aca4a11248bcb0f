"""The composition root: settings in, a running service out. The only package that constructs."""

from proxy.app.service import Running, Work, bound, serve, serve_registry
from proxy.app.site import Site, build

__all__ = ["Running", "Site", "Work", "bound", "build", "serve", "serve_registry"]
