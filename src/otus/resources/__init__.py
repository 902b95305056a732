"""What jobs take and ask for: the size of the corpus, measured figures, past jobs, and the plan of a run."""
