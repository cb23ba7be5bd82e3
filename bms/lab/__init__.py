"""From laboratory data to a cell file (`identify`), and the estimator over a logged trace (`estimate`)."""
