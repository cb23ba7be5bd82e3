"""The loop around the core: clock, configuration, recording, replay, report."""

SERIES, SUMMARY, PAGE = "series.npz", "summary.json", "report.html"  # files of a run, beside its recording
