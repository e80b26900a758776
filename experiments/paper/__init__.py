"""The figures and tables of the ADC paper (arXiv 2509.15058), one command each: `python -m experiments.paper NAME`."""
