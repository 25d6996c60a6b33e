"""Holds the task families of `tasks/` in an installation; a checkout reads `tasks/` itself."""
