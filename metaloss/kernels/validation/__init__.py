"""What is counted of many classifiers' logits."""
