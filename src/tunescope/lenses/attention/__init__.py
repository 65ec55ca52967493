"""Where heads look, and how tuning moved it."""
