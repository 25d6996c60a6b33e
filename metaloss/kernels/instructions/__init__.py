"""Vector instructions, products of small matrices made of them, and a processor's modes."""
