"""What all packages use.

Random streams, populations, the registry, settings as tables, text and drawing.
"""
