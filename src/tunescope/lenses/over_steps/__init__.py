"""A training over its saved steps: every checkpoint seen by the same lenses on the same texts."""
