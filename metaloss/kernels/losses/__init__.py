"""Gradients of many losses with respect to logits, and their adjoints."""
