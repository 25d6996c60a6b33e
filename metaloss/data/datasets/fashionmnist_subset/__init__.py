"""Images of Fashion-MNIST (MIT licence, see LICENSE).

Made by scripts/make_fashionmnist_subset.py.
"""
