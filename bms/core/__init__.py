"""What a controller runs: compiled kernels and the one step that composes them. No I/O, no clock."""
