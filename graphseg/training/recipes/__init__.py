"""The papers' trainings, one file each: `RECIPE` with the paper's numbers, `SMALL` for a small machine."""
