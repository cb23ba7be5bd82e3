"""The loop around the core: clock, configuration, recording, replay, report."""

SERIES, SUMMARY, PAGE = "series.npz", "summary.json", "report.html"  # files of a run, beside its recording
SITE_SERIES = "site.csv"  # and of a run of a whole site, instead of the samples
