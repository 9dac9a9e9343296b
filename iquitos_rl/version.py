"""The package's version, apart from its face so that every module may ask for it."""

__version__ = "0.1.0"
