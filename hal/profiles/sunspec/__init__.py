"""A rack as a SunSpec device: `profile.toml` says which point carries what; the models beside it are our own."""
