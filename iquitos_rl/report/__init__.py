"""The report of a run: one self-contained HTML file and its figures, made from the files in the run's folder alone."""
