"""Full-size training of ordinary networks with any loss, on Lightning (the extra `train`)."""
