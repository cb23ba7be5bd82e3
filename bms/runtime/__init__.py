"""The loop around the core: clock, configuration, recording, replay, report."""
