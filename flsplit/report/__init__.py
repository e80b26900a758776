"""The report: one self-contained page from one or many run folders (`flsplit-report`)."""
