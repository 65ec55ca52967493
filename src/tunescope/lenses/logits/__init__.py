"""Which part of the residual stream wrote the answer."""
