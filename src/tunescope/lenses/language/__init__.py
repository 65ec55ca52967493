"""The lenses for language models, which have no classes."""
