"""Images of Fashion-MNIST (MIT licence, see LICENSE), made by scripts/make_fashionmnist_subset.py."""
