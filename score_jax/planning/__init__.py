"""What a compiled program will cost, read from its text: no device is needed, and no jax."""
