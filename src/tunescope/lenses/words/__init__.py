"""Which words of a text the answer hangs on."""
