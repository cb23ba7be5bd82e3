"""The reference profile: full resolution, one validity bit for each value, every frame protected."""
