"""Ways to bring an image onto a controller, and what an image is made of."""
