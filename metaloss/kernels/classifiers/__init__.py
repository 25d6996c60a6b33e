"""Passes of many classifiers through their layers, and their steps."""
