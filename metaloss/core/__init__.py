"""What all packages use.

Random streams, populations, the registry, settings as tables, text and the style of plots.
"""
