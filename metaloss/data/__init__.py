"""Images: sources, pools, and the tasks that are drawn from them."""
