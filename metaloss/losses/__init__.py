"""P losses at once: cross-entropies, formulas and their language, the zoo."""
