"""What a run leaves in its folder, and what others may follow while it goes on."""
