"""The report of a run: one self-contained HTML file and its figures, made only from files in the run's folder."""
