"""The language that losses are written in: primitives, trees, text, and programs that run them."""
