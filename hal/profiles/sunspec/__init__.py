"""A rack as a SunSpec device: `profile.toml` says which point carries what; the models beside it are our own.

`north.toml` is what an energy manager sees of a rack under its controller, `events.toml` what faults are called there.
"""
