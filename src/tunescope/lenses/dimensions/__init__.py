"""Which dimensions of the pooled states are loud, and which decide."""
