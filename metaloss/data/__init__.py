"""Images: where they come from, their pools, and the tasks that are drawn from these."""
