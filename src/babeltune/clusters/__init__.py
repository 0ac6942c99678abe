"""Grids on clusters: the same cells with the same checks, run by Slurm or Ray in place of workers of this machine."""
