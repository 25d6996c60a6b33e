"""One loss as a `torch.nn.Module`: used, loaded, saved, exported."""
