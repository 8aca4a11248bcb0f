"""What is remembered: metadata (small, changing pointers) and content (immutable, addressed by digest)."""
