"""What a weight carries: put tuned weights into the base, and back."""
