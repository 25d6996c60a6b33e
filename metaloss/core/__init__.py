"""What every package stands on: random streams, populations, the registry, settings as tables, text and drawing."""
