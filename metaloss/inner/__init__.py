"""The inner loop: P x T classifiers train at once."""
