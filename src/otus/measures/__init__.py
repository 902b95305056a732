"""The numbers of a paper: what a layer found against the truth, with intervals over groups."""
