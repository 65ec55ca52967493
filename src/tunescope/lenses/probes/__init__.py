"""What a linear probe reads off each layer."""
