"""Studies and measurements built on the platform."""
