"""Models, weights and images: where they come from."""
