"""A registry over HTTP: asking, authenticating, and believing nothing unchecked."""
