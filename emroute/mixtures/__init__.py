"""What all mixtures share: a family's interface, the E-step, posteriors, and files."""
