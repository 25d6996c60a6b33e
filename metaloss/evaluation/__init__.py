"""How losses are scored fairly: tuned, compared, drawn."""
