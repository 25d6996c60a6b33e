"""Full-size training of ordinary networks with any loss; Lightning, of the extra `train`, runs the loop."""
