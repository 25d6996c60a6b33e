"""Questions that end in a report: comparison, recommendation, rank study, papers' tables."""
