"""Task families: episodes and full trainings, opened alike."""
